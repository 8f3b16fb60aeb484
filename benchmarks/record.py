"""What the Optuna study of a run costs: the same search with and without it.

    python benchmarks/record.py [--model DIR] [--data FILE] [--agent evolution] [--max-tokens 60000] [--repeats 1]
        [--storage URL] [--device cpu] [--json]

Storages are a journal file, sqlite in a temporary directory, and any --storage. CPU seconds are the process's; the
record's own are those of its thread, and what it takes of the search is their share in the CPU seconds of the search
without it. Wall seconds end when everything is written.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from common import Bench, Setup, agent_of, command, mean_sd, parser_of, prepare

from autoprune.errors import LimitReached
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.records.record import Record
from autoprune.records.storage import check_storage
from autoprune.written import without_password

NOTHING, FILE = "no record", "journal file"


def main() -> None:
    args = arguments()
    agent_of(args.agent)
    check_storage(args.storage)  # mistakes are found before anything is computed
    bench = prepare(Setup.of(args))
    print(f"{len(bench.assembly.space.units)} units, {args.agent}, {args.max_tokens} tokens, {args.device}\n")
    heads = f"{'CPU s':>15s} {'ratio':>6s} {'wall s':>15s} {'ratio':>6s} {'its CPU s':>10s}"
    with tempfile.TemporaryDirectory() as folder:
        storages = {NOTHING: None, FILE: None, "sqlite": f"sqlite:///{folder}/studies.db"}
        if args.storage:
            storages[without_password(args.storage)] = args.storage
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in storages}
        for i in range(args.repeats):  # in turns, so that what else the machine does falls on all alike
            for name, storage in storages.items():
                path = Path(folder) / f"{name.replace('/', '-')}-{i}"
                runs[name].append(searched(bench, args, path, storage, recorded=name != NOTHING))
                print(f"{name}: {runs[name][-1]}", file=sys.stderr, flush=True)
    table = {name: {key: mean_sd([run[key] for run in own]) for key in own[0]} for name, own in runs.items()}
    plain = table[NOTHING]
    print(f"{'':28s} {'scores':>7s} {heads}")
    for name, row in table.items():
        cells = [
            f"{row[key][0]:8.2f} ± {row[key][1]:4.2f} {row[key][0] / plain[key][0]:6.3f}" for key in ("cpu", "wall")
        ]
        share = row["own"][0] / plain["cpu"][0]
        print(f"{name:28s} {row['scores'][0]:7.0f} {' '.join(cells)} {row['own'][0]:10.3f} {share:6.1%}")
    if args.json:
        told = {"agent": args.agent, "max_tokens": args.max_tokens, "device": args.device}
        print(json.dumps({**told, "storages": table}))


def searched(
    bench: Bench, args: argparse.Namespace, run: Path, storage: str | None, recorded: bool
) -> dict[str, float]:
    """One search, its journal written as a run's."""
    run.mkdir()
    space, statistics = bench.assembly.space, bench.assembly.store.statistics
    journal = Journal(run / "journal.jsonl", "benchmark")
    with thread_time() as own:
        cpu, wall = time.process_time(), time.perf_counter()
        if recorded:
            record = Record(run, journal, space, bench.search.tokens_per_sequence, storage, agent=args.agent)
        objective = Objective(
            space, bench.search, Limits(tokens=args.max_tokens), journal,
            lambda _: record.write() if recorded else None, statistics,
        )  # fmt: skip
        with suppress(LimitReached), np.errstate(invalid="ignore"):
            agent_of(args.agent).search(objective, np.random.default_rng(args.seed))
        if recorded and (problem := record.close()):
            raise RuntimeError(problem)
        journal.close()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "own": sum(own), "scores": len(journal.scores)}


@contextmanager
def thread_time() -> Iterator[list[float]]:
    """CPU seconds of the record's thread, batch by batch."""
    spent: list[float] = []
    add = Record._add

    def timed(self: Record, *args: Any) -> None:
        begun = time.thread_time()
        add(self, *args)
        spent.append(time.thread_time() - begun)

    with mock.patch.object(Record, "_add", timed):
        yield spent


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--agent", default="evolution", help="name or name:key=value;key=value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--storage", help="an Optuna URL to measure too")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
