"""Fine-tuning in several processes: tokens a second, the difference of losses to one process, and a worker killed.

    python benchmarks/train_workers.py [--model DIR] [--data FILE] [--workers 1,2] [--batch 16] [--steps 30]
        [--device cpu|cuda] [--removed 0.5] [--tune KEY=VALUE] [--json]
    OMP_NUM_THREADS=1 python benchmarks/train_workers.py --workers 1,2       one thread a worker
    python benchmarks/train_workers.py --model DIR --data FILE --device cuda --workers 1,2,4 --batch 64 --tune at_once=0

The network of the `uniform` policy is trained from its refit, as `autoprune finetune` does. `--batch` sequences are in
a step, however many processes share them, so losses must be equal. Rates leave out the first steps. `difference` is the
largest of the losses of steps, and `weights` the largest of the trained weights, to those of the first number of
workers. In the last run a worker of the largest number gets SIGKILL in the middle: `lost` is how many seconds longer it
took, and `difference` is to the same number of workers undisturbed. `fsdp` is that number with a sharded network.
The processes are plain ones, through torch.distributed: gloo on a CPU and NCCL on GPUs. Ray is not needed.
"""

import argparse
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import command

import autoprune
from autoprune.display import print_table
from autoprune.errors import UserError
from autoprune.files.arrays import read_tensors
from autoprune.written import parse_override

FIRST = 5
"""Steps that are not timed."""
COLUMNS = ("", "tokens/s", "speedup", "seconds", "difference", "weights")

Row = dict[str, Any]


@dataclass
class Watch(autoprune.Callback):
    """Notes when steps are done, and kills the last worker after one of them."""

    folder: Path
    rank: int
    kill_at: int | None
    times: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def on_step(self, step: int, measures: Mapping[str, float]) -> None:
        """Note it."""
        self.times.append(time.monotonic())
        self.losses.append(measures["loss"])
        if step == self.kill_at:
            self.kill_at = None
            file = next(self.folder.glob(f"workers-*/pid-{self.rank}"))
            os.kill(int(file.read_text()), signal.SIGKILL)

    def on_notice(self, text: str) -> None:
        """Note it."""
        self.notices.append(text)


def main() -> None:
    args = arguments()
    counts = [int(count) for count in args.workers.split(",")]
    most = max(counts)
    if uneven := [count for count in counts if args.batch % count]:
        raise UserError(f"--batch {args.batch} cannot be shared by {uneven[0]} workers evenly: give a multiple of it.")
    with tempfile.TemporaryDirectory() as folder:
        run = searched(Path(folder), args)
        rows = {f"{count} workers": trained(run, args, count) for count in counts}
        if most > 1:
            rows["fsdp"] = trained(run, args, most, sharding="fsdp")
            rows["killed"] = trained(run, args, most, kill_at=args.steps // 2)
    first = rows[f"{counts[0]} workers"]
    for name, row in rows.items():
        base = rows[f"{most} workers"] if name == "killed" else first
        compare(row, base)
        row["speedup"] = row["tokens_per_second"] / first["tokens_per_second"]
        if name == "killed":
            row["lost"] = row["seconds"] - base["seconds"]
    for row in rows.values():
        del row["state"], row["losses"]
    show(rows)
    if args.json:
        print(json.dumps({"rows": rows, "batch": args.batch, "steps": args.steps, "device": args.device}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", help="none is the embedded model")
    parser.add_argument("--data")
    parser.add_argument("--workers", default="1,2", help="numbers of processes, the first of which is compared with")
    parser.add_argument("--batch", type=int, default=16, help="sequences in a step, of all workers together")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--removed", type=float, default=0.5)
    parser.add_argument("--tune", action="append", default=[], metavar="KEY=VALUE", help="a setting of fine-tuning")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the search")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


def searched(folder: Path, args: argparse.Namespace) -> Path:
    """A run whose policy is uniform."""
    given = {"model": args.model, "data": args.data, "device": args.device}
    own: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    own |= dict(parse_override(one) for one in args.set)
    budgets = {"params": 1 - args.removed}
    return autoprune.search(agent="uniform", budgets=budgets, out=folder / "run", progress=False, **own).path


def trained(run: Path, args: argparse.Namespace, workers: int, kill_at: int | None = None, **own: Any) -> Row:
    """Train a copy of the run."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run, copy)
        watch = Watch(copy / "finetuned", workers - 1, kill_at)
        settings = {"max_steps": args.steps, "batch": args.batch // workers, "workers": workers, **own}
        settings |= {"save_every": max(1, args.steps // 4)} if kill_at else {}
        begun = time.monotonic()
        done = autoprune.finetune(
            copy, progress=False, callbacks=[watch], **settings | dict(parse_override(one) for one in args.tune)
        )
        assert done.training is not None
        state = read_tensors(copy / "finetuned" / "state.safetensors")
        state = {name: tensor.clone() for name, tensor in state.items() if name.startswith("network.")}
    per_step = done.training.tokens / done.training.steps
    steps = len(watch.times) - FIRST
    return {
        "tokens_per_second": per_step * (steps - 1) / (watch.times[-1] - watch.times[FIRST]),
        "seconds": time.monotonic() - begun,
        "loss": watch.losses[-1],
        "told": watch.notices,
        "losses": watch.losses,
        "state": state,
    }


def compare(row: Row, base: Row) -> None:
    """Add the differences of losses and weights."""
    pairs = zip(row["losses"], base["losses"], strict=True)
    row["difference"] = max(abs(a - b) for a, b in pairs)
    row["weights"] = max(float((row["state"][name] - tensor).abs().max()) for name, tensor in base["state"].items())


def show(rows: Mapping[str, Row]) -> None:
    lines = [
        [
            name,
            f"{row['tokens_per_second']:,.0f}",
            f"{row['speedup']:.2f}",
            f"{row['seconds']:.1f}",
            f"{row['difference']:.1e}",
            f"{row['weights']:.1e}",
        ]
        for name, row in rows.items()
    ]
    print_table("fine-tuning in several processes", COLUMNS, lines)
    for row in rows.values():
        for told in row["told"]:
            print(told)


if __name__ == "__main__":
    command(main)
