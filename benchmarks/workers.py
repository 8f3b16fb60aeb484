"""Scoring on Ray: policies a second with several workers, against one process; start-up and memory of the workers.

    python benchmarks/workers.py --model DIR --data FILE [--workers 1,2] [--policies 16] [--batches 4] [--sequences 8]
        [--device cpu|cuda] [--gpus-per-worker 1] [--set KEY=VALUE] [--json]
    OMP_NUM_THREADS=1 python benchmarks/workers.py ...        one thread a worker, and one in this process
    python benchmarks/workers.py --random 1B --device cuda --set criterion=magnitude --workers 1,2,4

Batches are what evolution scores: mutations of one policy within the budget, on common sequences. This process scores
them first; its references, and those of the workers, are there before the clock starts. Efficiency is the rate of k
workers over k times the rate of this process. `dense` is a plain forward pass of the dense network over as many tokens
as a batch has, here. `difference` is the largest between a loss of the pool and of this process, 0 for equal bits.
Start-up is from the command for a pool to its first loss. Memory of a worker, MiB: what it has for itself (USS) and its
part of what it shares (PSS) in all; and of the network's and the level store's files, what it has mapped and what it
has copied, which is what one more worker adds of them.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Setup, command, parser_of
from networks import SIZES, random_llama
from numpy.typing import NDArray

from autoprune.assembly import Assembly, assemble
from autoprune.config import SearchConfig, load_config
from autoprune.ports.scorer import Scorer
from autoprune.space import Proposal
from autoprune.workers.pool import WorkerPool


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        if args.random:
            args.model = random_llama(Path(folder), args.random, args.device)
        config = load_config(None, json.loads(Setup.of(args, gpus_per_worker=args.gpus_per_worker).settings))
        report = measure(args, config)
    show(report)
    if args.json:
        print(json.dumps(report))


def measure(args: argparse.Namespace, config: SearchConfig) -> dict[str, Any]:
    if config.device == "cpu":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    assembly = assemble(config)
    batches, sequences = batches_of(assembly, args), list(range(args.sequences))
    evaluator = assembly.evaluator(assembly.splits.search, config.loss)
    rate, losses = timed(evaluator, batches, sequences)
    per_batch = len(batches[0])
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if config.device != "cpu" else "cpu",
        "params": assembly.loaded.n_params, "policies": per_batch, "sequences": len(sequences),
        "tokens_per_sequence": config.sequence_length, "threads": torch.get_num_threads(),
        "policies_per_second": rate, "dense_per_second": 1 / dense_seconds(assembly, sequences), "workers": [],
    }  # fmt: skip
    for workers in (int(text) for text in args.workers.split(",")):
        report["workers"].append(on_pool(assembly, config, workers, batches, sequences, rate, losses))
        print(f"# {report['workers'][-1]}", file=sys.stderr, flush=True)
    return report


def on_pool(
    assembly: Assembly, config: SearchConfig, workers: int, batches: list[list[Proposal]], sequences: list[int],
    rate: float, losses: list[NDArray[np.float64]],
) -> dict[str, Any]:  # fmt: skip
    """A row: one number of workers."""
    begun = time.perf_counter()
    with WorkerPool(
        config.model_copy(update={"workers": workers}), lambda text: print(f"# {text}", file=sys.stderr)
    ) as pool:
        scorer = pool.scorer(assembly)
        scorer.score([assembly.space.dense], sequences[:1])
        started = time.perf_counter() - begun
        while len(pool.pids) < workers:
            time.sleep(0.1)
        for _ in range(2):  # whoever takes a sequence next time has its references by then
            scorer.score([assembly.space.dense, *batches[0]], sequences)
        own, found = timed(scorer, batches, sequences)
        memories = [memory(pid) for pid in pool.pids]
    return {
        "workers": workers, "policies_per_second": own, "ratio": own / rate, "efficiency": own / rate / workers,
        "start_seconds": started, **{key: float(np.mean([one[key] for one in memories])) for key in memories[0]},
        "difference": max(float(np.abs(a - b).max()) for a, b in zip(found, losses, strict=True)),
    }  # fmt: skip


def timed(
    scorer: Scorer, batches: list[list[Proposal]], sequences: list[int]
) -> tuple[float, list[NDArray[np.float64]]]:
    """Policies a second, and the losses of each batch."""
    scorer.score(batches[0][:1], sequences)
    begun = time.perf_counter()
    losses = [scorer.score(batch, sequences) for batch in batches]
    return sum(map(len, batches)) / (time.perf_counter() - begun), losses


def batches_of(assembly: Assembly, args: argparse.Namespace) -> list[list[Proposal]]:
    """What evolution would score."""
    rng, space = np.random.default_rng(0), assembly.space
    base = space.uniform()
    return [[space.mutate(base, rng, 2) for _ in range(args.policies)] for _ in range(args.batches)]


@torch.no_grad()
def dense_seconds(assembly: Assembly, sequences: list[int]) -> float:
    """A plain forward pass of the dense network over the sequences, in the batches that scoring uses."""
    assembly.placer.release()
    model: Any = assembly.loaded.model
    tokens_NT = assembly.splits.search[sequences].to(assembly.config.device)
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        for chunk in tokens_NT.split(assembly.config.batch_size()):
            model(input_ids=chunk, use_cache=False)
        if tokens_NT.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[1:]))


def memory(pid: int) -> dict[str, float]:
    """MiB of a process: its own, its part of what it shares; of weight files, what is mapped and what is copied."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(kib) / 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, flags=re.MULTILINE)}
    told = {"uss": found["Private_Clean"] + found["Private_Dirty"], "pss": found["Pss"], "mapped": 0.0, "copied": 0.0}
    of_weights = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            of_weights = line.endswith(".safetensors")
        elif of_weights and line.startswith(("Rss:", "Private_Dirty:")):
            told["mapped" if line.startswith("Rss") else "copied"] += int(line.split()[1]) / 1024
    return told


def show(report: dict[str, Any]) -> None:
    size, dense = report["params"] / 1e6, report["dense_per_second"]
    rate = report["policies_per_second"]
    print(
        f"{size:,.0f} M parameters on {report['device']}: batches of {report['policies']} policies x "
        f"{report['sequences']} sequences of {report['tokens_per_sequence']} tokens\n\n"
        f"a dense pass over them: {1 / dense:.4f} s; one process, {report['threads']} threads: {rate:.2f} policies/s, "
        f"{dense / rate:.2f} dense passes each\n"
    )
    names = ["workers", "policies/s", "ratio", "efficiency", "start s", "USS", "PSS", "mapped", "copied", "difference"]
    widths = [8, 11, 7, 11, 8, 6, 6, 7, 7, 11]
    print(" ".join(f"{name:>{width}s}" for name, width in zip(names, widths, strict=True)))
    for one in report["workers"]:
        print(
            f"{one['workers']:8d} {one['policies_per_second']:11.2f} {one['ratio']:7.2f} {one['efficiency']:11.2f} "
            f"{one['start_seconds']:8.1f} {one['uss']:6.0f} {one['pss']:6.0f} {one['mapped']:7.0f} "
            f"{one['copied']:7.1f} {one['difference']:11.2g}"
        )


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--workers", default="1,2", help="numbers of workers")
    parser.add_argument("--policies", type=int, default=16, help="of a batch")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=8, help="that each policy is scored on")
    parser.add_argument("--gpus-per-worker", type=float)
    parser.add_argument("--random", choices=sorted(SIZES), help="a Llama of this size with random weights")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
