"""What a candidate costs in a search, in dense forward passes over the same tokens in the same process.

    python benchmarks/cost_per_candidate.py --model DIR --data FILE [--agent evolution] [--tokens 200000] [--seeds 1]
        [--budget params=0.5] [--device cpu] [--set KEY=VALUE] [--json]
    python benchmarks/cost_per_candidate.py --random 1B --device cuda --set criterion=magnitude ...

The whole of `agent.search` is timed, with a journal in a file and nothing of the dense network known beforehand:
proposals, bookkeeping, the journal, the dense network's references, blocks, head and loss, and the slopes that the
default agent climbs along. It is divided by the seconds that plain dense forward passes (`model(input_ids=...)`, at
most `batch` sequences each) take for the tokens that the search is charged: the sequences of every score, and those of
slopes as often as they count for passes. Dense passes are timed before and after each search, the median of all holds.
The same search is then run again with a clock around each part, which on a GPU waits for the device; parts are told as
shares of the ratio. Sources of saving, of scores: blocks that were run, of those that a policy has (the rest was
shared), and seconds of one against a dense one.

`rank_correlation`, where the dtype is not float32: Spearman's, between losses of random policies in that dtype and in
float32, on the whole search split.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Setup, agent_of, command, mean_sd, parser_of
from networks import SIZES, random_llama
from numpy.typing import NDArray

from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.errors import LimitReached
from autoprune.evaluation.evaluator import Evaluator
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.ports.scorer import Scorer, ScorerWrapper
from autoprune.space import Levels, Proposal

REPEATS = 5


class Counted(ScorerWrapper):
    """A scorer that knows what it was asked.

    Attributes:
        asked: policies by the number of their sequences; slopes are as many as the passes that they are charged as.
        candidates: policies scored, without slopes.
        lanes: sequences of all of them.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer)
        self.asked, self.candidates, self.lanes = Counter[int](), 0, 0

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """The scorer's."""
        self.asked[len(sequences)] += len(policies)
        self.candidates += len(policies)
        self.lanes += len(policies) * len(sequences)
        return self.scorer.score(policies, sequences)

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64] | None:
        """The scorer's."""
        slopes_UL = self.scorer.slopes(policy, sequences)
        if slopes_UL is not None:
            self.asked[len(sequences)] += self.slope_passes
        return slopes_UL


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        if args.random:
            args.model = random_llama(Path(folder), args.random, args.device)
        assembly = assemble(load_config(None, json.loads(Setup.of(args).settings)))
        if assembly.config.device == "cpu":
            torch.set_num_threads(args.threads or torch.get_num_threads())
        seeds = [measured(assembly, args, Path(folder), seed) for seed in range(args.seeds)]
        correlation = rank_correlation(assembly, args) if args.float32 else None
    report = {
        "model": args.random or args.model, "agent": args.agent, "tokens": args.tokens,
        "budgets": assembly.config.budgets, "device": device_name(assembly), "dtype": str(dtype_of(assembly)),
        "batch": assembly.config.batch_size(), "threads": torch.get_num_threads(), "seeds": seeds,
        "ratio": mean_sd([one["ratio"] for one in seeds])[0], "ratio_sd": mean_sd([one["ratio"] for one in seeds])[1],
        "parts": mean_of([one["parts"] for one in seeds]), "saving": mean_of([one["saving"] for one in seeds]),
        "rank_correlation": correlation,
    }  # fmt: skip
    show(report)
    if args.json:
        print(json.dumps(report))


def measured(assembly: Assembly, args: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """One seed: the ratio, and where it goes."""
    warm(assembly)
    sizes = range(1, assembly.config.batch_size() + 1)
    before = {n: dense_seconds(assembly, n) for n in sizes}
    seconds, scorer, _ = searched(assembly, args, folder / f"{seed}.jsonl", seed)
    dense = {n: float(np.median(before[n] + dense_seconds(assembly, n))) for n in sizes}
    yardstick = sum(count * passes(dense, n) for n, count in scorer.asked.items())
    with clocked(assembly) as clock:
        again, scorer, evaluator = searched(assembly, args, folder / f"{seed}-parts.jsonl", seed, clock)
    parts = {name: clock[name] / again * seconds / yardstick for name in clock}
    parts["agent and bookkeeping"] = seconds / yardstick - sum(parts.values())
    lanes, blocks = scorer.lanes, len(assembly.view.blocks)
    return {
        "seed": seed, "ratio": seconds / yardstick, "seconds": seconds, "dense_seconds": dense[1],
        "candidates": scorer.candidates, "sequences": lanes, "parts": parts,
        "saving": {
            "blocks run": evaluator.runner.blocks_run / (lanes * blocks),
            "seconds of a block": clock["blocks"] / evaluator.runner.blocks_run / block_seconds(assembly),
            "states a pass": evaluator.runner.blocks_run / max(1, clock.calls["blocks"]),
        },
    }  # fmt: skip


def searched(
    assembly: Assembly, args: argparse.Namespace, journal: Path, seed: int, clock: "Clock | None" = None
) -> tuple[float, Counted, Evaluator]:
    """Seconds of a search."""
    evaluator = assembly.evaluator(assembly.splits.search, assembly.config.loss)
    scorer, record = Counted(evaluator), Journal(journal)
    if clock is not None:
        clock.around(record, "append", "journal")
        clock.around(evaluator._readout, "references", "dense references")
        clock.around(evaluator._readout, "measure", "head and loss")
        clock.around(evaluator, "slopes", "slopes")
    objective = Objective(
        assembly.space, scorer, Limits(tokens=args.tokens), record, statistics=assembly.store.statistics
    )
    synchronise(assembly)
    begun = time.perf_counter()
    with suppress(LimitReached), np.errstate(invalid="ignore"):
        agent_of(args.agent).search(objective, np.random.default_rng(seed))
    synchronise(assembly)
    seconds = time.perf_counter() - begun
    record.close()
    return seconds, scorer, evaluator


class Clock(dict[str, float]):
    """Seconds by part, and how often each was called; what is called within a part belongs to it."""

    def __init__(self, wait: Callable[[], None]) -> None:
        super().__init__()
        self.calls, self._wait, self._within = Counter[str](), wait, False

    def around(self, owner: Any, method: str, part: str) -> None:
        """Time a method of one object."""
        plain = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._within:
                return plain(*args, **kwargs)
            self._wait()
            self._within, begun = True, time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                self._wait()
                self._within = False
                self[part] = self.get(part, 0.0) + time.perf_counter() - begun
                self.calls[part] += 1

        setattr(owner, method, timed)


@contextmanager
def clocked(assembly: Assembly) -> Iterator[Clock]:
    """A clock around the steps of the network."""
    clock = Clock(lambda: synchronise(assembly))
    clock.around(assembly.view, "embed", "embedding")
    clock.around(assembly.view, "run", "blocks")
    clock.around(assembly.placer, "place_block", "placing")
    try:
        yield clock
    finally:
        for owner, method in ((assembly.view, "embed"), (assembly.view, "run"), (assembly.placer, "place_block")):
            delattr(owner, method)


# -- yardsticks --------------------------------------------------------------------------------------------------


def warm(assembly: Assembly) -> None:
    """Kernels are chosen and memory is taken at first use."""
    evaluator = assembly.evaluator(assembly.splits.search, assembly.config.loss)
    space = assembly.space
    evaluator.score([space.dense, space.uniform()], range(min(evaluator.n_sequences, assembly.config.batch_size())))


@torch.no_grad()
def dense_seconds(assembly: Assembly, sequences: int) -> list[float]:
    """A plain forward pass of the dense network over so many sequences at once, several times."""
    assembly.placer.release()
    model: Any = assembly.loaded.model
    tokens_NT = assembly.splits.search[:sequences].to(assembly.config.device)
    seconds = []
    for _ in range(REPEATS + 1):
        synchronise(assembly)
        begun = time.perf_counter()
        model(input_ids=tokens_NT, use_cache=False)
        synchronise(assembly)
        seconds.append(time.perf_counter() - begun)
    return seconds[1:]


def passes(dense: dict[int, float], sequences: int) -> float:
    """Seconds of dense passes over so many sequences, in the largest batches that there are."""
    most = max(dense)
    return sequences // most * dense[most] + dense.get(sequences % most, 0.0)


def block_seconds(assembly: Assembly) -> float:
    """One dense block, one state: the mean over blocks."""
    assembly.placer.release()
    hidden = assembly.view.embed(assembly.splits.search[:1].to(assembly.config.device))
    blocks, seconds = range(len(assembly.view.blocks)), []
    for _ in range(REPEATS + 1):
        synchronise(assembly)
        begun = time.perf_counter()
        for block in blocks:
            assembly.view.run(block, hidden)
        synchronise(assembly)
        seconds.append((time.perf_counter() - begun) / len(blocks))
    return float(np.median(seconds[1:]))


def rank_correlation(assembly: Assembly, args: argparse.Namespace) -> float:
    """Between losses of the same policies here and in float32."""
    settings = json.loads(Setup.of(args).settings) | {"dtype": "float32"}
    exact = assemble(load_config(None, settings))
    rng = np.random.default_rng(0)
    base = assembly.space.uniform()
    policies = [assembly.space.mutate(base, rng, 2) for _ in range(32)]
    ranks = []
    for one in (assembly, exact):
        evaluator = one.evaluator(one.splits.search, one.config.loss)
        ranks.append(evaluator.score(policies, range(evaluator.n_sequences)).mean(axis=1).argsort().argsort())
    return float(np.corrcoef(*ranks)[0, 1])


# -- what is told ------------------------------------------------------------------------------------------------


def synchronise(assembly: Assembly) -> None:
    if assembly.config.device != "cpu":
        torch.cuda.synchronize()


def device_name(assembly: Assembly) -> str:
    return "cpu" if assembly.config.device == "cpu" else str(torch.cuda.get_device_name())


def dtype_of(assembly: Assembly) -> torch.dtype:
    return next(assembly.loaded.model.parameters()).dtype


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def show(report: dict[str, Any]) -> None:
    print(
        f"{report['model']}, {report['agent']}, {report['tokens']} tokens on {report['device']}, {report['dtype']}: a "
        f"candidate costs {report['ratio']:.3f} ± {report['ratio_sd']:.3f} of a dense pass over its tokens\n"
    )
    for name, share in report["parts"].items():
        print(f"  {name:24s}{share:7.3f}")
    print("\nof what a candidate would take without them:\n")
    for name, value in report["saving"].items():
        print(f"  {name:24s}{value:7.3f}")
    if report["rank_correlation"] is not None:
        print(f"\nrank correlation with float32: {report['rank_correlation']:.4f}")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--agent", default="evolution", help="with its settings, as name:key=value;key=value")
    parser.add_argument("--tokens", type=int, default=200_000, help="limit of each search")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of a CPU")
    parser.add_argument("--random", choices=sorted(SIZES), help="a Llama of this size with random weights")
    parser.add_argument("--float32", action="store_true", help="compare ranks of losses with float32's")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
