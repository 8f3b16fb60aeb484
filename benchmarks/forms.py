"""Forms of levels at equal budgets: what each of them loses, alone and together, uniform and searched.

    python benchmarks/forms.py --model DIR --data FILE --test FILE [--forms NAME,NAME] [--agents uniform,evolution]
        [--bounds 0.5,0.3] [--metric params] [--seeds 3] [--max-tokens 200k] [--jobs 1] [--json]

Each row of `ROWS` is a choice of forms and of a criterion. A row is searched by each agent at each bound on the metric,
with so many tokens and each seed. The policies are scored on the test text, which no search saw. `uniform` keeps the
same share of every unit and has no seeds.

The last line is one JSON object: row -> agent -> bound -> the losses of the seeds, their mean, and the cost.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from common import Setup, agent_of, command, mean_sd, parser_of, prepare, spread

from autoprune.amounts import parse_count
from autoprune.errors import LimitReached, UserError
from autoprune.objective import Limits

SHARES = [i / 10 for i in range(10, -1, -1)]
"""The fractions of every row, so that bounds of tenths are levels of their own."""


@dataclass(frozen=True)
class Row:
    """Settings of one row.

    Args:
        forms: which the search may use.
        criterion: which orders and corrects.
        bounds: the bounds that it can be had at; none is all.
        alone: whether the only levels are dense and the bound, as where one threshold sets the shares of all units.
        settings: further ones.
        least: whether every unit has its last level, whatever the bounds: what is compared has a cost of its own.
    """

    forms: str
    criterion: str
    bounds: tuple[float, ...] = ()
    alone: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    least: bool = False

    def of(self, bound: float) -> dict[str, Any]:
        """Settings at a bound."""
        levels = [1.0, bound] if self.alone else SHARES
        return {"forms": self.forms, "criterion": self.criterion, "levels": levels, **self.settings}


ROWS = {
    "groups": Row("groups", "obs"),
    "sparse-magnitude": Row("sparse", "magnitude"),
    "sparse-global-magnitude": Row("sparse", "global-magnitude", alone=True),
    "sparse-wanda": Row("sparse", "wanda"),
    "sparse-sparsegpt": Row("sparse", "sparsegpt"),
    "2:4-wanda": Row("2:4", "wanda", (0.5,)),
    "2:4-sparsegpt": Row("2:4", "sparsegpt", (0.5,)),
    "groups+sparse": Row("groups,sparse", "sparsegpt"),
    "groups+sparse+2:4": Row("groups,sparse,2:4", "sparsegpt"),
    "bits": Row("bits", "obs"),
    "groups+bits": Row("groups,bits", "obs"),
    "all-8-bits": Row("bits:8", "obs", least=True),
    "all-4-bits": Row("bits:4", "obs", least=True),
    "all-3-bits": Row("bits:3", "obs", least=True),
    "depth": Row("groups", "obs", settings={"levels": [1, 0]}),
    "depth+constant": Row("linear:constant", "obs"),
    "depth+linear": Row("linear:full", "obs"),
    "depth+rank": Row("linear:rank", "obs"),
    "groups+linear": Row("groups,linear", "obs"),
}
"""Name -> settings. A new form adds its rows here."""


@dataclass(frozen=True)
class Run:
    """One search."""

    row: str
    agent: str
    bound: float
    seed: int
    tokens: int
    setup: Setup


@dataclass(frozen=True)
class Found:
    """What it found: KL and cross-entropy on the test text, loss on the search split, cost as a share of dense."""

    run: Run
    kl: float
    ce: float
    search: float
    cost: float


def search(run: Run) -> Found:
    """One search, and its policy on the test text."""
    bench = prepare(run.setup)
    objective, space = bench.objective(Limits(tokens=run.tokens)), bench.assembly.space
    if ROWS[run.row].least:
        best = space.sparsest
    else:
        with suppress(LimitReached):
            agent_of(run.agent).search(objective, np.random.default_rng(run.seed))
        best = objective.best
    (metric,) = space.budgets
    kl, ce = bench.test_losses(best)
    cost = space.cost(best, metric) / space.cost(space.dense, metric)
    return Found(run, kl, ce, bench.search_losses([best])[0], cost)


def main() -> None:
    """Search all rows, tell each result as it comes, and the table at the end."""
    parser = parser_of(str(__doc__).partition("\n")[0], test=True)
    parser.add_argument("--forms", default=",".join(ROWS), help="rows of the table")
    parser.add_argument("--agents", default="uniform,evolution")
    parser.add_argument("--bounds", default="0.5,0.3", help="shares of the metric")
    parser.add_argument("--metric", default="params")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-tokens", default="200k", help="of each search")
    args = parser.parse_args()
    names, bounds = args.forms.split(","), [float(bound) for bound in args.bounds.split(",")]
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise UserError(f"there is no row '{unknown[0]}'. Known: {', '.join(ROWS)}.")
    runs = [Run(name, "uniform", 1.0, 0, 0, _setup(args, ROWS[name], 1.0)) for name in names if ROWS[name].least]
    runs += [
        Run(name, agent, bound, seed, parse_count(args.max_tokens), _setup(args, ROWS[name], bound))
        for name in names
        for bound in bounds
        for agent in args.agents.split(",")
        for seed in range(1 if agent == "uniform" else args.seeds)
        if bound in (ROWS[name].bounds or bounds)
        and not (ROWS[name].alone and agent != "uniform")
        and not ROWS[name].least
    ]
    found = []
    for one in spread(search, runs, args.jobs):
        found.append(one)
        run = one.run
        print(f"{run.row:24} {run.agent:12} {run.bound:5g} seed {run.seed}: {one.kl:.4f} at {one.cost:.3f}", flush=True)
    table = tabled(found)
    print(json.dumps(table) if args.json else told(table))


def tabled(found: Sequence[Found]) -> dict[str, dict[str, dict[str, Any]]]:
    """Row -> agent -> bound -> numbers."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for one in sorted(found, key=lambda one: one.run.seed):
        at = table.setdefault(one.run.row, {}).setdefault(one.run.agent, {})
        cell = at.setdefault(f"{one.run.bound:g}", {"kl": [], "ce": [], "search": [], "cost": []})
        for name, values in cell.items():
            values.append(getattr(one, name))
    for agents in table.values():
        for cells in agents.values():
            for cell in cells.values():
                cell["mean"], cell["sd"] = mean_sd(cell["kl"])
    return table


def told(table: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The same for people."""
    lines = [
        f"{row:24} {agent:12} {bound:>5}  {cell['mean']:.4f} +- {cell['sd']:.4f}"
        for row, agents in table.items()
        for agent, cells in agents.items()
        for bound, cell in cells.items()
    ]
    return "\n".join(["row, agent, bound: KL on the test text", *lines])


def _setup(args: Any, row: Row, bound: float) -> Setup:
    return Setup.of(args, budgets={args.metric: bound}, **row.of(bound))


if __name__ == "__main__":
    command(main)
