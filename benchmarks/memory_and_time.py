"""Where a command's memory and processor time go, stage by stage: a search, its export and its evaluation.

    python benchmarks/memory_and_time.py [--model DIR] [--data FILE] [--set max_tokens=40000] [--json]

Each command runs in a process of its own, on the functions that the command line calls, with an empty cache. Memory is
the largest resident set of a stage, mapped files among it, as Linux counts it (`VmHWM`, reset between stages);
processor time is of all threads.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Setup, command, parser_of

BEFORE = "starting"
Stage = Callable[[str, float], None]


@dataclass(frozen=True)
class Row:
    """What one stage took: seconds of the processor and of the clock, bytes at its peak."""

    command: str
    stage: str
    processor: float
    seconds: float
    peak: int


class Meter:
    """Is told the stages as a display is, and closes one when the next begins.

    Args:
        command: what the stages are of.
    """

    def __init__(self, command: str) -> None:
        self.rows: list[Row] = []
        self._command, self._stage = command, BEFORE
        self._begin()

    def stage(self, name: str, _share: float = 0.0) -> None:
        """Another stage begins, or the same goes on."""
        if name == self._stage:
            return
        processor, seconds = time.process_time() - self._processor, time.perf_counter() - self._clock
        self.rows.append(Row(self._command, self._stage, processor, seconds, _peak()))
        self._stage = name
        self._begin()

    def _begin(self) -> None:
        with suppress(OSError):  # elsewhere a stage's peak is the peak until then
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._processor, self._clock = time.process_time(), time.perf_counter()


def _peak() -> int:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    args = arguments()
    context, rows = multiprocessing.get_context("spawn"), []
    print(f"{'':10s} {'stage':22s} {'processor s':>12s} {'seconds':>9s} {'peak MiB':>9s}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOPRUNE_CACHE"] = str(Path(folder) / "cache")
        setup, run = Setup.of(args), Path(folder) / "run"
        for name in args.commands.split(","):
            with context.Pool(1) as pool:
                own = pool.apply(measured, (name, setup, run))
            show(own)
            rows += own
    if args.json:
        print(json.dumps([vars(row) for row in rows]))


def measured(name: str, setup: Setup, run: Path) -> list[Row]:
    """The stages of one command, in this process."""
    meter = Meter(name)
    commands: dict[str, Callable[[Setup, Path, Stage], None]] = {
        "search": search, "export": export, "evaluate": evaluate, "finetune": finetune,
    }  # fmt: skip
    commands[name](setup, run, meter.stage)
    meter.stage("end")
    return meter.rows


def search(setup: Setup, run: Path, stage: Stage) -> None:
    from autoprune.callbacks import Callback
    from autoprune.config import load_config
    from autoprune.study import start

    class Stages(Callback):
        def on_stage(self, name: str, share: float) -> None:
            stage(name, share)

        def on_scores(self, objective: Any) -> None:
            stage("searching", 0.0)

    start(load_config(None, json.loads(setup.settings)), run, Stages())


def export(setup: Setup, run: Path, stage: Stage) -> None:
    from autoprune.exporting import export_policy, reopen

    assembly, policy = reopen(run, stage)
    stage("writing", 0.0)
    export_policy(assembly, policy, run / "hf", "hf")


def evaluate(setup: Setup, run: Path, stage: Stage) -> None:
    from autoprune.api import evaluate as evaluated

    evaluated(run)


def finetune(setup: Setup, run: Path, stage: Stage) -> None:
    from autoprune.api import finetune as recovered

    recovered(run, 0, progress=stage)


def show(rows: list[Row]) -> None:
    """One line a stage of a command, and one for all of them."""
    processor, seconds = sum(row.processor for row in rows), sum(row.seconds for row in rows)
    total = Row(rows[0].command, "all", processor, seconds, max(row.peak for row in rows))
    for row in [*rows, total]:
        peak = row.peak / 2**20
        print(f"{row.command:10s} {row.stage:22s} {row.processor:12.1f} {row.seconds:9.1f} {peak:9.0f}", flush=True)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--commands", default="search,export,evaluate", metavar="A,B,...", help="finetune (refit) too")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
