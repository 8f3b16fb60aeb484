"""One Pareto front from NSGA-II against separate searches at several budgets, at the same tokens in all: hypervolume.

    python benchmarks/front.py --model DIR --data FILE --test FILE [--budgets 0.35,0.44,0.53,0.61,0.7]
        [--tokens 250000] [--seeds 3] [--agent evolution] [--device cpu] [--json]

NSGA-II gets the largest budget of parameters and all tokens; the agent that it is compared with gets each budget and an
equal part of the tokens. `additive` is what both can have before they search: the best policies under the sum of
single-unit sensitivities, at as many budgets as NSGA-II keeps points. Fronts are measured on the test text; the
hypervolume is the area that a front dominates below the loss of uniform at the smallest budget and left of the largest
budget, as a share of that rectangle over 0. Wider is better.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from common import Bench, Setup, agent_of, command, mean_sd, parser_of, prepare

from autoprune.agents.nsga2 import NSGA2
from autoprune.envs import sensitivity
from autoprune.errors import LimitReached
from autoprune.objective import Limits, Objective
from autoprune.space import Proposal, SearchSpace

Points = list[tuple[float, float]]
"""(share of the parameters, test KL) of each policy of a front."""


def main() -> None:
    args = arguments()
    budgets = sorted(float(text) for text in args.budgets.split(","))
    bench = prepare(Setup.of(args, budgets={"params": budgets[-1]}))
    corner = worst(bench, budgets)
    report: dict[str, list[float]] = {"additive": [], "nsga2": [], args.agent: []}
    for seed in range(args.seeds):
        fronts = {
            "additive": additive(bench, budgets),
            "nsga2": one_front(bench, args.tokens, seed),
            args.agent: separate(bench, args.agent, budgets, args.tokens, seed),
        }
        for name, proposals in fronts.items():
            points = measured(bench, proposals)
            report[name].append(hypervolume(points, *corner))
            told = " ".join(f"{share:.3f}:{loss:.3f}" for share, loss in sorted(points))
            print(f"# seed {seed} {name:10s} {report[name][-1]:.4f}  {told}", file=sys.stderr, flush=True)
    base = float(np.mean(report[args.agent]))
    print(f"{'front':12s} {'hypervolume':>18s} {'/ ' + args.agent:>12s}")
    for name, volumes in report.items():
        mean, sd = mean_sd(volumes)
        print(f"{name:12s} {mean:8.4f} ± {sd:7.4f} {mean / base:12.3f}")
    if args.json:
        print(json.dumps(report))


def one_front(bench: Bench, tokens: int, seed: int) -> Sequence[Proposal]:
    """What one run of NSGA-II keeps."""
    agent, objective = NSGA2(), bench.objective(Limits(tokens=tokens))
    search(agent, objective, seed)
    return agent.front(objective)


def separate(bench: Bench, spec: str, budgets: Sequence[float], tokens: int, seed: int) -> list[Proposal]:
    """The answers of a search for each budget, with a part of the tokens each."""
    found: list[Proposal] = []
    for share in budgets:
        objective = Objective(
            at(bench.assembly.space, share), bench.search, Limits(tokens=tokens // len(budgets)),
            statistics=bench.assembly.store.statistics,
        )  # fmt: skip
        search(agent_of(spec), objective, seed)
        found.append(objective.best)
    return found


def additive(bench: Bench, budgets: Sequence[float]) -> list[Proposal]:
    """What sensitivities alone give."""
    objective = bench.objective(Limits())
    added_UL = sensitivity.measure(objective, range(1))
    shares = np.linspace(budgets[0], budgets[-1], NSGA2().points)
    return [sensitivity.additive_solution(at(bench.assembly.space, float(share)), added_UL) for share in shares]


def search(agent: Any, objective: Objective, seed: int) -> None:
    with suppress(LimitReached), np.errstate(invalid="ignore"):
        agent.search(objective, np.random.default_rng(seed))


def at(space: SearchSpace, share: float) -> SearchSpace:
    """The space under another budget of parameters, a share of dense."""
    return space.rebudgeted({"params": share * space.cost(space.dense, "params")})


def worst(bench: Bench, budgets: Sequence[float]) -> tuple[float, float, float]:
    """The rectangle: smallest and largest share, and the highest loss."""
    uniform = at(bench.assembly.space, budgets[0]).uniform()
    return budgets[0], budgets[-1], bench.test_losses(uniform)[0]


def measured(bench: Bench, proposals: Sequence[Proposal]) -> Points:
    space = bench.assembly.space
    dense = space.cost(space.dense, "params")
    return [(space.cost(one, "params") / dense, bench.test_losses(one)[0]) for one in proposals]


def hypervolume(points: Points, left: float, right: float, top: float) -> float:
    """Area above and right of the front within the rectangle, as a share of it."""
    area, lowest = 0.0, top
    ordered = sorted((max(share, left), loss) for share, loss in points if share <= right + 1e-6)
    edges = [*ordered, (right, top)]
    for (share, loss), (following, _) in itertools.pairwise(edges):
        lowest = min(lowest, loss)
        area += (following - share) * (top - lowest)
    return area / ((right - left) * top)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0], test=True)
    parser.add_argument("--budgets", default="0.35,0.44,0.53,0.61,0.7", help="shares of the parameters")
    parser.add_argument("--tokens", type=int, default=250_000, help="of each side")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--agent", default="evolution", help="that searches each budget by itself")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
