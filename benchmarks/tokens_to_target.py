"""Tokens that an agent needs for what EvoPress finds with all of its tokens, and how both end at equal tokens.

    python benchmarks/tokens_to_target.py --model DIR --data FILE [--test FILE] [--agents evolution] [--seeds 5]
        [--tokens 400000] [--budget params=0.7]... [--space width] [--device cpu] [--jobs 1] [--out STEM] [--json]

For each budget (0.7, 0.5 and 0.3 of the parameters where none is given) the target is the mean loss of EvoPress's
answers on the whole search split. A search has reached it with the first incumbent that is no worse there; incumbents
are scored outside the limits, at most --points of each search, so that tokens are known to a few percent. Told are
medians over seeds; a search that does not get there counts as infinitely long. The held-out text is --test, or else the
validation split. With --out, outcomes are kept in STEM-<budget>.jsonl, and the same command again does the rest only.
The last line with --json is one JSON object.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from common import command, mean_sd, parser_of, specs
from compare_agents import TOKENS, searched
from outcomes import Outcome, print_table, rows_of

PEER = "evopress"
BUDGETS = ("params=0.7", "params=0.5", "params=0.3")


def main() -> None:
    args = arguments()
    agents = [PEER, *(agent for agent in specs(args.agents) if agent != PEER)]
    budgets = {}
    for budget in args.budget or BUDGETS:
        out = args.out and f"{args.out}-{budget.replace('=', '')}.jsonl"
        own = {"budget": [budget], "agents": ",".join(agents), "out": out, "seconds": None}
        record = searched(argparse.Namespace(**vars(args) | own))
        outcomes = [o for agent in agents for o in record.outcomes if o.agent == agent]
        budgets[budget] = compared(outcomes, args.tokens)
        print(f"\n{budget}\n")
        print_table(rows_of(outcomes, PEER), PEER)
        told(budgets[budget])
    if args.json:
        held_out = args.test or "validation split"
        print(json.dumps({"peer": PEER, "tokens": args.tokens, "held_out": held_out, "budgets": budgets}))


def compared(outcomes: Sequence[Outcome], full: int) -> dict[str, Any]:
    """The target, and for each other agent the tokens to it and the differences at equal tokens.

    Args:
        full: the peer's tokens.
    """
    rows = rows_of(outcomes, PEER)
    target, sd = rows[PEER]["search_kl"]
    report: dict[str, Any] = {"target": target, "target_sd": sd, "agents": {}}
    for agent in rows:
        if agent == PEER:
            continue
        needed = [tokens_to(target, o) for o in outcomes if o.agent == agent]
        median = float(np.median(needed))
        report["agents"][agent] = {
            "tokens": [tokens if np.isfinite(tokens) else None for tokens in needed],
            "median_tokens": median if np.isfinite(median) else None,
            "ratio": full / median if np.isfinite(median) else None,
            "search_kl_difference": rows[agent]["search_kl_difference"],
            "held_out_kl_difference": rows[agent]["test_kl_difference"],
            "held_out_kl": mean_sd([o.test_kl for o in outcomes if o.agent == agent]),
        }
    return report


def tokens_to(target: float, outcome: Outcome) -> float:
    """Tokens at which the search had its first incumbent at or below the target; infinite if it never had."""
    return min((tokens for tokens, _, loss in outcome.curve if loss <= target), default=np.inf)


def told(report: dict[str, Any]) -> None:
    """One line for each agent."""
    for agent, row in report["agents"].items():
        if row["median_tokens"] is None:
            print(f"\n{agent}: most searches do not reach {report['target']:.4f}")
        else:
            print(
                f"\n{agent}: {report['target']:.4f} after {row['median_tokens']:.0f} tokens, {row['ratio']:.2f} x fewer"
            )


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0], test=True)
    parser.add_argument("--agents", default="evolution", help="compared with evopress")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="limit of each search")
    parser.add_argument("--points", type=int, default=60, help="incumbents of each search that are scored, at most")
    parser.add_argument("--out", metavar="STEM", help="outcomes are kept in STEM-<budget>.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
