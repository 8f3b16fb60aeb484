"""Which agent is best here? Several agents within the same limits, their ranking, and a page about it.

    python examples/03_compare_and_report.py

The model is loaded once, and every agent and seed gets a search of its own, which is an ordinary run. Agents are ranked
by their loss on the validation split, which none of them sees. The command line does the same:
`autoprune compare --agents evolution,random,uniform --seeds 2 --out runs/cmp`, then `autoprune report runs/cmp`.

Expect, in about a minute, a row for each agent, best first; then one HTML file with learning curves and policies for
the comparison, and one for the best agent's first run.
"""

import argparse

import autoprune
from autoprune.reports.page import write_report

parser = argparse.ArgumentParser()
parser.add_argument("--tokens", type=int, default=40_000, help="policies x tokens scored, for each search")
parser.add_argument("--seeds", type=int, default=2, help="searches of each agent")
arguments = parser.parse_args()

comparison = autoprune.compare(
    ["evolution", "random", "uniform"], seeds=arguments.seeds, budgets={"params": 0.5},
    max_tokens=arguments.tokens,
    sequence_length=128, reconstruction_sequences=64, search_sequences=32, validation_sequences=32,
)  # fmt: skip

for row in comparison.table:
    print(f"{row['agent']:>10}: loss {row['loss']:.4f}")
print(f"report: {write_report(comparison.path)}")
best = comparison.table[0]["agent"]
print(f"report: {write_report(comparison.path / f'{best}-s0')}")
