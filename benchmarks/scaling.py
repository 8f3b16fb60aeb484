"""How the cost of scoring grows: with the candidates of a batch, 1 to 64, and with the layers of a network, 6 to 48.

    python benchmarks/scaling.py [--size 20M] [--candidates 1,2,4,8,16,32,64] [--layers 6,12,24,48] [--sequences 2]
        [--device cpu] [--set KEY=VALUE] [--json]

Llamas with random weights. Candidates are what evolution would score: mutants of one parent, whose states are known, on
common sequences. `seconds` is of a batch whose parent's states are known, as in a search; `cold` is with nothing kept
from earlier calls, so that all sharing is within the batch. `dense passes` is what a candidate takes of a plain dense
forward pass over the same sequences. Exponents are slopes of log seconds over log candidates, or log layers: 1 is
linear. `states MiB` is what is kept between calls, at most `limit MiB`, whatever the batch.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Setup, command, parser_of
from networks import SIZES, random_llama

from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.evaluation.evaluator import Evaluator
from autoprune.space import Proposal

REPEATS = 3


def main() -> None:
    args = arguments()
    layers = [int(text) for text in args.layers.split(",")]
    candidates = [int(text) for text in args.candidates.split(",")]
    by_layers = []
    for depth in layers:
        assembly = prepared(args, depth)
        dense = dense_seconds(assembly, args.sequences)
        own = candidates if depth == args.depth else [args.batch]
        rows = [measured(assembly, args, n, dense) for n in own]
        if depth == args.depth:
            by_candidates = rows
        by_layers.append(next(row for row in rows if row["candidates"] == args.batch) | {"layers": depth})
    report = {
        "size": args.size, "device": args.device, "sequences": args.sequences, "candidates": by_candidates,
        "exponents_in_candidates": exponents([row["candidates"] for row in by_candidates], by_candidates),
        "layers": by_layers, "exponents_in_layers": exponents(layers, by_layers),
    }  # fmt: skip
    show(report)
    if args.json:
        print(json.dumps(report))


def prepared(args: argparse.Namespace, layers: int) -> Assembly:
    """A network with so many layers, ready to be scored."""
    with tempfile.TemporaryDirectory() as folder:
        args.model = random_llama(Path(folder), args.size, args.device, layers)
        small = {"criterion": "magnitude", "reconstruction_sequences": 2, "validation_sequences": 2}
        return assemble(load_config(None, small | json.loads(Setup.of(args).settings)))


def measured(assembly: Assembly, args: argparse.Namespace, count: int, dense: float) -> dict[str, Any]:
    """Seconds of a batch, the median over batches of new mutants."""
    rng, space = np.random.default_rng(0), assembly.space
    seconds: dict[bool, list[float]] = {False: [], True: []}
    sequences = list(range(args.sequences))
    evaluator: Evaluator = assembly.evaluator(assembly.splits.search, assembly.config.loss)
    for repeat in range(REPEATS + 1):
        parent = space.sample(rng)
        evaluator.score([parent], sequences)
        for cold in seconds:
            batch: set[Proposal] = set()
            while len(batch) < count:
                batch.add(space.mutate(parent, rng, 2))
            if cold:
                evaluator.runner.cache.clear()
            synchronise(args.device)
            begun = time.perf_counter()
            evaluator.score(sorted(batch), sequences)
            synchronise(args.device)
            if repeat:
                seconds[cold].append(time.perf_counter() - begun)
    cache, warm = evaluator.runner.cache, float(np.median(seconds[False]))
    return {
        "candidates": count, "seconds": warm, "dense_passes_each": warm / count / dense,
        "cold_seconds": float(np.median(seconds[True])), "states_mib": cache.nbytes / 2**20,
        "limit_mib": cache.limit / 2**20,
    }  # fmt: skip


@torch.no_grad()
def dense_seconds(assembly: Assembly, sequences: int) -> float:
    """A plain forward pass over the sequences, in the batches that scoring uses."""
    assembly.placer.release()
    model: Any = assembly.loaded.model
    tokens_NT, seconds = assembly.splits.search[:sequences].to(assembly.config.device), []
    for _ in range(REPEATS + 1):
        synchronise(assembly.config.device)
        begun = time.perf_counter()
        for chunk in tokens_NT.split(assembly.config.batch_size()):
            model(input_ids=chunk, use_cache=False)
        synchronise(assembly.config.device)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[1:]))


def exponents(sizes: list[int], rows: list[dict[str, Any]]) -> dict[str, float]:
    """The slopes of log seconds over log sizes."""
    return {
        name: float(np.polyfit(np.log(sizes), np.log([row[name] for row in rows]), 1)[0])
        for name in ("seconds", "cold_seconds")
    }


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def show(report: dict[str, Any]) -> None:
    for name, title in (("candidates", "candidates of a batch"), ("layers", "layers")):
        print(
            f"\n{title:>22s} {'seconds':>9s} {'dense passes':>13s} {'cold':>9s} {'states MiB':>11s} {'limit MiB':>10s}"
        )
        for row in report[name]:
            print(
                f"{row[name]:22d} {row['seconds']:9.4f} {row['dense_passes_each']:13.3f} {row['cold_seconds']:9.4f} "
                f"{row['states_mib']:11.0f} {row['limit_mib']:10.0f}"
            )
        found = report[f"exponents_in_{name}"]
        print(f"exponent {found['seconds']:.2f}, cold {found['cold_seconds']:.2f}")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="20M")
    parser.add_argument("--candidates", default="1,2,4,8,16,32,64")
    parser.add_argument("--layers", default="6,12,24,48")
    parser.add_argument("--depth", type=int, default=12, help="layers where candidates grow; one of --layers")
    parser.add_argument("--batch", type=int, default=8, help="candidates where layers grow; one of --candidates")
    parser.add_argument("--sequences", type=int, default=2)
    args = parser.parse_args()
    if str(args.depth) not in args.layers.split(",") or str(args.batch) not in args.candidates.split(","):
        parser.error("--depth must be one of --layers, and --batch one of --candidates")
    return args


if __name__ == "__main__":
    command(main)
