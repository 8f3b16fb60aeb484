"""A whole default search on a large network, timed by stage: preparation, level store, search, validation; peak memory.

    python benchmarks/large.py --random 8B --data FILE --device cuda --set mlp_group=128 [--tokens 400000] [--json]

A Llama with random weights in bfloat16, made and saved before the clock starts. What runs is `autoprune search` but for
the command line, in an empty cache: loading, moments of 128 sequences, every level of every unit, the search, and the
validation of dense, uniform and best. `candidates` are policies scored, sequences x policies the work in it; the dense
pass is one sequence. Losses of random weights mean nothing, times and memory do.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import Setup, command, parser_of
from cost_per_candidate import dense_seconds
from networks import SIZES, random_llama

from autoprune.callbacks import Callback
from autoprune.config import load_config
from autoprune.objective import Objective
from autoprune.study import start


class Stages(Callback):
    """Seconds from the first word of each stage to that of the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, float] = {}
        self._stage, self._begun = "", time.perf_counter()

    def on_scores(self, objective: Objective) -> None:
        """The search is a stage."""
        self.on_stage("searching", 0.0)

    def on_stage(self, stage: str, share: float) -> None:
        """A stage begins, unless it is the present one."""
        if stage == self._stage:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._begun
            if torch.cuda.is_available():
                self.peak[self._stage] = torch.cuda.max_memory_allocated() / 2**30
                torch.cuda.reset_peak_memory_stats()
        self._stage, self._begun = stage, now
        print(f"# {stage}", file=sys.stderr, flush=True)


def main() -> None:
    args = arguments()
    stages = Stages()
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        args.model = random_llama(Path(folder) / "model", args.random, args.device)
        os.environ["AUTOPRUNE_CACHE"] = str(Path(folder) / "cache")
        settings = json.loads(Setup.of(args).settings) | {"max_tokens": args.tokens}
        stages.on_stage("starting", 0.0)
        result = start(load_config(None, settings), Path(folder) / "run", stages)
        stages.on_stage("end", 1.0)
        store = sum(file.stat().st_size for file in (Path(folder) / "cache").rglob("*.safetensors"))
        dense = sorted(dense_seconds(result.assembly, 1))[2]
    candidate = result.spent.seconds / (result.spent.tokens / result.assembly.config.sequence_length)
    report: dict[str, Any] = {
        "size": args.random, "params": result.assembly.loaded.n_params,
        "device": torch.cuda.get_device_name() if args.device != "cpu" else "cpu", "settings": settings,
        "seconds": stages.seconds, "peak_gib": stages.peak, "total_seconds": sum(stages.seconds.values()),
        "store_gib": store / 2**30, "candidates": result.spent.evals, "tokens": result.spent.tokens,
        "search_seconds": result.spent.seconds, "dense_seconds": dense, "ratio": candidate / dense,
    }  # fmt: skip
    show(report)
    if args.json:
        print(json.dumps(report))


def show(report: dict[str, Any]) -> None:
    print(
        f"{report['params'] / 1e9:.2f} B parameters on {report['device']}, level store {report['store_gib']:.1f} GiB\n"
    )
    for stage, seconds in report["seconds"].items():
        print(f"  {stage:22s}{seconds:8.1f} s   peak {report['peak_gib'].get(stage, 0.0):5.1f} GiB")
    print(f"  {'in all':22s}{report['total_seconds']:8.1f} s\n")
    print(
        f"{report['candidates']} candidates, {report['tokens']} tokens in {report['search_seconds']:.1f} s; a sequence "
        f"of a candidate takes {report['ratio']:.2f} of a dense pass ({1e3 * report['dense_seconds']:.1f} ms)"
    )


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--random", choices=sorted(SIZES), default="8B")
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--scratch", help="directory for the network and the cache; none is the system's")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
