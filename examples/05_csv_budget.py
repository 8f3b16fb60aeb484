"""A budget from a CSV: the latency of every level of every unit on this machine, measured, and 60 % of it allowed.

    python examples/05_csv_budget.py [FOLDER]

Writes `latency.csv` (autoprune/budgets/table.py describes the form) into FOLDER, or into a temporary one, and searches
with it as the budget. A unit's latency is what its block takes with the unit at that level and the other unit dense,
less what it takes without the unit. The sum of such latencies is an estimate: units are timed one at a time, embedding,
norms and head are in no row, and a search likes what noise made cheap. So at the end the estimate is held against whole
forward passes. Expect, in about a minute, a loss below uniform's, and a speed that the table puts too high: 1.5x to
1.9x where 1.3x to 1.5x were timed, on two cores that other programs used too.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np

import autoprune
from autoprune.assembly import assemble
from autoprune.config import load_config

SMALL = {
    "sequence_length": 128, "reconstruction_sequences": 64, "search_sequences": 32, "validation_sequences": 32
}  # fmt: skip


def measure(path: Path, rounds: int = 15) -> None:
    """Write the seconds of every level of every unit of the embedded model to a CSV file."""
    assembly = assemble(load_config(overrides=SMALL))
    units, tokens_1T = assembly.space.units, assembly.splits.search[:1]
    hidden_1TD = assembly.view.embed(tokens_1T)

    def block_seconds(u: int, level: int) -> float:
        """Time of the block of unit u with that unit at a level and everything else dense."""
        assembly.placer.place(tuple(level if v == u else 0 for v in range(len(units))))
        begun = time.perf_counter()
        assembly.view.run(units[u].block, hidden_1TD)
        return time.perf_counter() - begun

    every = [(u, level) for u, unit in enumerate(units) for level in range(len(unit.levels))]
    times = [{at: block_seconds(*at) for at in every} for _ in range(rounds)]  # a slow moment hits all levels alike
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["unit", "kept", "cost"])
        for u, unit in enumerate(units):
            seconds_L = np.median([[row[u, level] for level in range(len(unit.levels))] for row in times], axis=0)
            cost_L = np.maximum(seconds_L - seconds_L[-1], 0)  # the last level is without the unit
            cost_L = np.minimum.accumulate(cost_L)  # no level may cost more than a denser one
            writer.writerows((unit.name, level.kept, cost) for level, cost in zip(unit.levels, cost_L, strict=True))


parser = argparse.ArgumentParser()
parser.add_argument("folder", nargs="?", type=Path, help="where latency.csv is written")
parser.add_argument("--tokens", type=int, default=60_000, help="policies x tokens scored")
arguments = parser.parse_args()

folder = arguments.folder or Path(tempfile.mkdtemp())
folder.mkdir(parents=True, exist_ok=True)
table = folder / "latency.csv"
measure(table)
print(f"measured: {table}")

result = autoprune.search(budgets={str(table): 0.6}, max_tokens=arguments.tokens, **SMALL)
dense, uniform, best = result.table
cost = result.policy.costs[str(table)]
print(f"uniform: loss {uniform.validation_loss:.4f}, best: loss {best.validation_loss:.4f}")
print(f"latency of the units by the table: {cost.policy / cost.dense:.0%} of dense")

pass_seconds = SMALL["sequence_length"] / dense.tokens_per_second
estimated = pass_seconds / (pass_seconds - (cost.dense - cost.policy))
timed = best.tokens_per_second / dense.tokens_per_second
print(f"speed of the network: {estimated:.2f}x dense by the table, {timed:.2f}x timed")
