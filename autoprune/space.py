"""The search space: units x levels, the costs of levels, and the projection of proposals onto the budgets.

Shapes: U units, L levels (of the unit that has most), P policies, M budgeted metrics.
Agents name levels by small integers: 0 is dense, and a higher level is no denser. Within one form a higher level costs
no more; across forms it may (steps.py). `cost_UL[u, l]` is what unit u costs at level l. Levels that a unit lacks hold
+inf and are never used.

Costs add over units. A peak metric (memory) takes the maximum over units instead. For such a metric the search uses
each level's excess over the bound: the budget holds when the excesses sum to zero.
"""

import copy
import operator
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import UserError
from autoprune.growth import growth
from autoprune.level import Key, Level
from autoprune.mask import Mask
from autoprune.steps import Steps, rises
from autoprune.unit import Unit, kept_groups
from autoprune.unmet import unmet
from autoprune.wording import Words

__all__ = ["SLACK", "Levels", "Proposal", "SearchSpace", "Unit", "kept_groups"]

Levels = tuple[int, ...]
"""A policy as agents see it: one level for every unit."""

Proposal = Levels | Mask
"""A proposal of an agent: levels, or a mask of single groups."""

SLACK = 1e-9  # of dense: sums of floats may miss an exact budget by rounding


class SearchSpace:
    """Units, their costs and the budgets. Everything here is exact, seeded and free of torch.

    Args:
        units: in the order of the network.
        costs: metric -> for each unit, the cost of each of its levels.
        budgets: metric -> bound on the total, absolute.
        group_costs: metric -> for each unit, the cost of keeping 0, 1, ... all of its groups. Masks are charged with
            it. None where only levels are searched.
        fixed: metric -> cost that every policy has (for a latency: embedding and head). It is part of every total and
            of the budget. It is 0 for metrics that are not named.
        measures: metric -> its unit of measurement, for messages.
        words: the words of the network's task, for messages.
        peaks: metrics whose total is the maximum over the units and the fixed cost, not the sum.

    Attributes:
        groups: number of bits of each unit in a mask: its groups, or its bundles, which masks keep as a whole.
        costs: metric -> additive costs, `[U, L]`. For a peak metric they are each level's excess over the budget.
        bounds: metric -> the bound on the sum of `costs`: the budget minus the fixed cost; 0 for a peak metric.
        floor: the densest level of each unit that proposals are repaired to: 0, or what earlier rounds have left.

    Raises:
        UserError: a metric has no costs, a cost is negative or grows as less is kept, or a budget cannot be met.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        costs: Mapping[str, Sequence[Sequence[float]]],
        budgets: Mapping[str, float],
        group_costs: Mapping[str, Sequence[Sequence[float]]] | None = None,
        fixed: Mapping[str, float] | None = None,
        measures: Mapping[str, str] | None = None,
        words: Words | None = None,
        peaks: Collection[str] = (),
    ) -> None:
        self.units, self.words, self.peaks = tuple(units), words or Words(), frozenset(peaks)
        self.groups = tuple(unit.bundles(unit.groups) for unit in self.units)
        self.budgets = dict(budgets)
        self.group_costs = {
            metric: [np.asarray(row, dtype=np.float64) for row in rows] for metric, rows in (group_costs or {}).items()
        }
        self.n_levels_U = np.array([len(unit.levels) for unit in self.units])
        self.floor: Levels = (0,) * len(self.units)
        self._given = {metric: self._padded(metric, rows) for metric, rows in costs.items()}
        self.fixed = {metric: float((fixed or {}).get(metric, 0.0)) for metric in self._given}
        self.costs = {m: self._over(m) if m in self.peaks else cost_UL for m, cost_UL in self._given.items()}
        self.bounds = {m: 0.0 if m in self.peaks else bound - self.fixed[m] for m, bound in self.budgets.items()}
        self._rows: list[list[list[float]]] = [self.costs[metric].tolist() for metric in self.budgets]
        dense = [self.cost(self.dense, metric) for metric in self.budgets]
        self._bounds = [bound + SLACK * cost for bound, cost in zip(self.bounds.values(), dense, strict=True)]
        self.steps = Steps(self._rows, self._bounds, self.n_levels_U.tolist())
        for m, (metric, bound) in enumerate(self.budgets.items()):
            smallest = self.cost(self.sparsest, metric)
            if smallest > bound + SLACK * dense[m]:
                raise unmet(metric, bound, smallest, dense[m], self.fixed[metric], (measures or {}).get(metric))

    def _padded(self, metric: str, rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        cost_UL = np.full((len(self.units), int(self.n_levels_U.max())), np.inf)
        for u, (unit, row) in enumerate(zip(self.units, rows, strict=True)):
            values = np.asarray(row, dtype=np.float64)
            if not np.all(np.isfinite(values)) or np.any(values < 0):
                raise UserError(f"the metric '{metric}' gives {values.tolist()} for unit {unit.name}: costs are >= 0.")
            if np.any(np.diff(values) > 0) and rises(unit.levels, row):
                raise UserError(
                    f"the metric '{metric}' gives {values.tolist()} for unit {unit.name} at "
                    f"{[level.key for level in unit.levels]} groups kept: a level may not cost more than a denser one "
                    "of its form."
                )
            cost_UL[u, : len(values)] = values
        return cost_UL

    def _over(self, metric: str) -> NDArray[np.float64]:
        """By how much each level is over the budget."""
        bound = self.budgets.get(metric, np.inf) + SLACK * self.cost(self.dense, metric)
        cost_UL = self._given[metric]
        return np.where(np.isfinite(cost_UL), np.maximum(0.0, cost_UL - bound), np.inf)

    def rows(self, metric: str) -> list[list[float]]:
        """For each unit, the cost of each of its levels. For a peak metric, this is the peak itself, not the excess."""
        return [[float(cost) for cost in row[:n]] for row, n in zip(self._given[metric], self.n_levels_U, strict=True)]

    def rebudgeted(self, budgets: Mapping[str, float]) -> "SearchSpace":
        """The same units and costs under other budgets.

        Raises:
            UserError: a budget cannot be met.
        """
        costs = {metric: self.rows(metric) for metric in self.costs}
        space = SearchSpace(self.units, costs, budgets, fixed=self.fixed, words=self.words, peaks=self.peaks)
        return space.with_floor(self.floor)

    def with_floor(self, floor: Levels) -> "SearchSpace":
        """The same space where something is gone already: the densest level of each unit that is another network."""
        space = copy.copy(self)
        space.floor = floor
        return space

    @cached_property
    def dense(self) -> Levels:
        """Level 0 everywhere."""
        return (0,) * len(self.units)

    @property
    def sparsest(self) -> Levels:
        """Of every unit the level that leaves most of the budgets: the last one, unless forms are mixed (steps.py)."""
        return self.steps.least

    def cost(self, proposal: Proposal, metric: str) -> float:
        """Total of a metric: the units and the fixed cost."""
        if isinstance(proposal, Mask):
            return self.cost_of_counts(self.kept(proposal), metric)
        return self.total(metric, self._given[metric][np.arange(len(proposal)), proposal])

    def total(self, metric: str, cost_U: Sequence[float] | NDArray[np.float64]) -> float:
        """Combine the costs of units with the fixed cost: the sum, or the maximum for a peak metric."""
        if metric in self.peaks:
            return max(self.fixed[metric], float(np.max(cost_U)))
        return self.fixed[metric] + float(np.sum(cost_U))

    def added(self, levels: Levels, metric: str) -> float:
        """The sum of the units' `costs`, to be compared with `bounds`."""
        return float(self.costs[metric][np.arange(len(levels)), levels].sum())

    def cost_of_counts(self, kept: Sequence[int], metric: str) -> float:
        """Total of a metric if the given number of groups of each unit is kept. Needs `group_costs`."""
        units = sum(row[k] for row, k in zip(self.group_costs[metric], kept, strict=True))
        return self.fixed[metric] + float(units)

    @cached_property
    def density_UL(self) -> NDArray[np.float64]:
        """Density of every level, `[U, L]`; 0 where a unit has no such level."""
        density_UL = np.zeros((len(self.units), int(self.n_levels_U.max())))
        for u, unit in enumerate(self.units):
            density_UL[u, : len(unit.levels)] = [level.density for level in unit.levels]
        return density_UL

    def levels_of(self, proposal: Proposal) -> list[Level]:
        """The level of each unit. For a mask, it is the level that keeps as many groups."""
        if isinstance(proposal, Mask):
            counts = zip(self.kept(proposal), self.units, strict=True)
            return [Level.of_groups(kept, unit.groups) for kept, unit in counts]
        return [unit.levels[level] for unit, level in zip(self.units, proposal, strict=True)]

    def keys(self, proposal: Proposal) -> tuple[Key, ...]:
        """The key of each unit's level; proposals with the same keys cost the same."""
        if isinstance(proposal, Mask):
            return tuple(self.kept(proposal))
        return tuple(row[level] for row, level in zip(self._keys, proposal, strict=True))

    @cached_property
    def _keys(self) -> list[list[Key]]:
        return [[level.key for level in unit.levels] for unit in self.units]

    def kept(self, proposal: Proposal) -> list[int]:
        """The number of groups of each unit that are kept at least in part."""
        if isinstance(proposal, Mask):
            counts = (int(np.bitwise_count(bits).sum()) for bits in proposal.split(self.groups))
            return [count * unit.bundle for count, unit in zip(counts, self.units, strict=True)]
        return [unit.levels[level].kept for unit, level in zip(self.units, proposal, strict=True)]

    def feasible(self, proposal: Proposal) -> bool:
        """Whether every budget holds."""
        if isinstance(proposal, Mask):
            return self.counts_fit(self.kept(proposal))
        return self._holds(self._used(proposal))

    def counts_fit(self, kept: Sequence[int]) -> bool:
        """Whether every budget holds if the given number of groups of each unit is kept. Needs `group_costs`."""
        used = (self.cost_of_counts(kept, metric) - self.fixed[metric] for metric in self.budgets)
        return all(cost <= bound for cost, bound in zip(used, self._bounds, strict=True))

    def check(self, proposal: Proposal) -> None:
        """Raise a UserError unless the proposal has one existing level, or one bit for each group, for every unit."""
        if isinstance(proposal, Mask):
            try:
                proposal.unpack(self.groups)
            except ValueError as error:
                raise UserError(f"{error}: the mask does not fit a space of {len(self.units)} units.") from error
            return
        levels = proposal
        if len(levels) != len(self.units) or any(
            not 0 <= level < n for level, n in zip(levels, self.n_levels_U, strict=False)
        ):
            raise UserError(f"levels {levels} do not fit a space of {len(self.units)} units with {self.n_levels_U}.")

    # -- proposals ---------------------------------------------------------------------------------------------

    def uniform(self) -> Levels:
        """The uniform policy: the largest common share of every unit within the budgets. It is the usual baseline.

        All units grow together from their last levels while the budgets hold. A unit that cannot grow any more stays,
        and the others continue, so that the baseline uses its budget. The result is maximal, as that of `repair`.
        """
        return self._uniform

    @cached_property
    def _uniform(self) -> Levels:
        current, used = list(self.sparsest), self._used(self.sparsest)
        for u in growth(self.units):
            denser = self._denser(current, used, u, self.floor[u])
            if denser is not None:
                current[u], used = denser, self._moved(used, u, current[u], denser)
        return tuple(current)

    def sample(self, rng: np.random.Generator) -> Levels:
        """A random policy within the budgets: independent uniform levels, then `repair`."""
        return self.repair(tuple(int(level) for level in rng.integers(self.n_levels_U)), rng)

    def mutate(self, levels: Levels, rng: np.random.Generator, switches: int = 1, first: int = 0) -> Levels:
        """Trade levels between units: each switch makes one unit denser by a level and thins another until the budgets
        hold.

        This is the level switch of EvoPress and DarwinLM, but the units may differ in kind and cost.

        Args:
            levels: the parent.
            rng: source of random numbers.
            switches: number of trades.
            first: index of the first unit that may change. Units before it change only if the budgets require it.
        """
        changed, count = levels, len(levels) - first
        if count == 1:  # nothing to trade with
            changed = (*levels[:-1], int(rng.integers(self.n_levels_U[-1])))
        for _ in range(switches if count > 1 else 0):
            up, apart = int(rng.integers(count)), int(rng.integers(1, count))
            up, down = first + up, first + (up + apart) % count
            trial = list(changed)
            if trial[up] <= self.floor[up]:
                up, down = down, up
            if trial[up] <= self.floor[up]:
                continue
            trial[up] -= 1
            while not self.feasible(tuple(trial)) and (thinner := self.steps.thinner(down, trial[down])) is not None:
                trial[down] = thinner
            changed = tuple(trial)
        if not first:
            return self.repair(changed, rng)
        behind = [first + int(u) for u in rng.permutation(len(levels) - first)]
        return self.repair(self._fill(self._thin(changed, behind), behind, floor=self.floor), rng)

    def crossover(self, mother: Levels, father: Levels, rng: np.random.Generator) -> Levels:
        """Take each unit's level from either parent with equal probability, then `repair`."""
        choice = rng.random(len(mother)) < 0.5
        mixed = tuple(m if c else f for m, f, c in zip(mother, father, choice, strict=True))
        return self.repair(mixed, rng)

    def repair(self, levels: Levels, rng: np.random.Generator | None = None) -> Levels:
        """Make a proposal feasible: thin units one level at a time, then fill what is left of the budgets.

        Filling first undoes thinning where that fits, and then makes any unit denser. The result is maximal: no unit
        can be one level denser within the budgets. The order of units is drawn from `rng`; without one it is their own
        order.
        """
        order, levels = self._order(levels, rng), tuple(map(max, levels, self.floor))
        thinned = self._thin(levels, order)
        if thinned != levels:
            thinned = self._fill(thinned, order, floor=levels)
        return self._fill(thinned, order, floor=self.floor)

    def thinned(self, levels: Levels, rng: np.random.Generator | None = None) -> Levels:
        """Make a proposal feasible without making any unit dearer. What is left of the budgets is not filled."""
        order, levels = self._order(levels, rng), tuple(map(max, levels, self.floor))
        return self._fill(self._thin(levels, order), order, floor=levels)

    def _order(self, levels: Levels, rng: np.random.Generator | None) -> list[int]:
        self.check(levels)
        return list(range(len(levels))) if rng is None else [int(u) for u in rng.permutation(len(levels))]

    def _thin(self, levels: Levels, order: Sequence[int]) -> Levels:
        """A step sparser, unit after unit, round after round, until every budget holds or all are at their least."""
        current, used = list(levels), self._used(levels)
        while any(current[u] != self.sparsest[u] for u in order):
            for u in order:
                if self._holds(used):
                    return tuple(current)
                thinner = self.steps.thinner(u, current[u])
                if thinner is not None:
                    used, current[u] = self._moved(used, u, current[u], thinner), thinner
        return tuple(current)

    def _fill(self, levels: Levels, order: Sequence[int], floor: Levels) -> Levels:
        """One level denser, unit after unit, down to `floor`'s level, while every budget holds."""
        filled = self._filled(levels, order, floor)
        while not all(self.steps.falling_U) and filled != levels:  # a denser level may leave more room than it had
            levels, filled = filled, self._filled(filled, order, floor)
        return filled

    def _filled(self, levels: Levels, order: Sequence[int], floor: Levels) -> Levels:
        current, used = list(levels), self._used(levels)
        open_units: Sequence[int] = [u for u in order if current[u] > floor[u]]
        while open_units := self._with_room(open_units, current, used):
            still_open = []
            for u in open_units:
                denser = self._denser(current, used, u, floor[u])
                if denser is not None:
                    current[u], used = denser, self._moved(used, u, current[u], denser)
                    if current[u] > floor[u]:
                        still_open.append(u)
            open_units = still_open
        return tuple(current)

    # totals of the budgeted metrics are lists of plain floats: for so few, NumPy's calls take longer than the sums

    def _with_room(self, units: Sequence[int], levels: Sequence[int], used: list[float]) -> Sequence[int]:
        """Those that could be one level denser, up to rounding: mostly none, which is found out quickly."""
        falls = self.steps.falling_U
        for rows, total, bound in zip(self._rows, used, self._bounds, strict=True):
            room = bound - total + abs(bound) * 1e-12
            units = [u for u in units if not falls[u] or rows[u][levels[u] - 1] - rows[u][levels[u]] <= room]
        return units

    def _denser(self, levels: Sequence[int], used: list[float], u: int, floor: int) -> int | None:
        """The nearest denser level of a unit within the budgets."""

        def holds(level: int) -> bool:
            return self._holds(self._moved(used, u, levels[u], level))

        return self.steps.denser(u, levels[u], floor, holds)

    def _used(self, levels: Levels) -> list[float]:
        return [sum([row[level] for row, level in zip(rows, levels, strict=True)]) for rows in self._rows]

    def _moved(self, used: list[float], u: int, level: int, to: int) -> list[float]:
        return [total + rows[u][to] - rows[u][level] for total, rows in zip(used, self._rows, strict=False)]

    def _holds(self, used: list[float]) -> bool:
        return all(map(operator.le, used, self._bounds))
