"""Single-unit sensitivities, and the policy that is best if their losses add up.

One unit at a time is set to a few of its levels while the others stay at a base policy. All these scores use the same
few tokens. Between measured levels the loss is interpolated over the output error, which the level store has for every
level. Puzzle (Bercovich et al. 2024) searches with such sums alone; here they are features and starting points.

Shapes: U units, L levels.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.objective import Objective
from autoprune.space import SLACK, Levels, SearchSpace

Floats = NDArray[np.float64]

AFFORDABLE = 0.75  # share of the limits: sensitivities are worth more than as many episodes
FEW = 3  # budgets of which all mixes are tried
MIXES = (1.0, 0.5, 0.25, 0.0)  # relative prices of these
ROUNDS = 12  # mixes of more budgets
EAGERNESS = 4  # the power of a budget's use by which its price falls behind


def measured_levels(space: SearchSpace, u: int, points: int, base: int = 0) -> list[int]:
    """`points` levels of unit u, evenly spread from `base` to the last; if `base` is not 0, half of them towards 0."""
    last = int(space.n_levels_U[u]) - 1
    side = points if base == 0 else max(1, points // 2)
    ends = [end for end in (0, last) if end != base]
    spread = {base + _away((end - base) * (i + 1) / side) for end in ends for i in range(side)}
    return sorted(spread)


def _away(step: float) -> int:
    """Rounded, but to no less than a level."""
    return round(step) or (1 if step > 0 else -1)


def probes(space: SearchSpace, points: int, base: Levels | None = None) -> list[tuple[int, int]]:
    """All measurements as (unit, level)."""
    at = base or space.dense
    return [(u, level) for u in range(len(at)) for level in measured_levels(space, u, points, at[u])]


def measure_if_affordable(
    objective: Objective, tokens: int, points: int = 3, share: float = AFFORDABLE
) -> Floats | None:
    """Call `measure` with a number of tokens for each score, if that takes no more than a share of the limits.

    Args:
        tokens: number of tokens, from the start of the search split; 0 measures nothing.
    """
    if not tokens:
        return None
    sequences, limits = range(objective.sequences_for(tokens)), objective.limits
    count = len(probes(objective.space, points))
    if limits.evals is not None and count > share * limits.evals:
        return None
    each = len(sequences) * objective.tokens_per_sequence
    if limits.tokens is not None and count * each > share * limits.tokens:
        return None
    return measure(objective, sequences, points)


def measure(objective: Objective, sequences: Sequence[int], points: int = 3, base: Levels | None = None) -> Floats:
    """The loss that each level of each unit alone adds to its level 0, `[U, L]`, nats per token.

    It is 0 at level 0 and never falls as less is kept. It costs `points` scores for each unit on `sequences`.

    Args:
        base: the levels of all other units. The default is the dense network, whose own losses cost nothing.

    Raises:
        LimitReached: the limits do not allow it.
    """
    space = objective.space
    at = base or space.dense
    asked = probes(space, points, base)
    policies = [(*at[:u], level, *at[u + 1 :]) for u, level in asked]
    before_S = objective.dense_losses(sequences) if base is None else objective.by_sequence([at], sequences)[0]
    losses_P = objective.by_sequence(policies, sequences, probe=True).mean(axis=1)
    before = float(before_S.mean())
    added_UL = np.zeros((len(space.units), int(space.n_levels_U.max())))
    found: list[dict[int, float]] = [{level: 0.0} for level in at]
    for (u, level), loss in zip(asked, losses_P, strict=True):
        found[u][level] = float(loss) - before if np.isfinite(loss) else 100.0
    for u, known in enumerate(found):
        added_UL[u] = _interpolated(objective, u, known, added_UL.shape[1])
    return added_UL


def _interpolated(objective: Objective, u: int, known: dict[int, float], levels: int) -> Floats:
    n = int(objective.space.n_levels_U[u])
    abscissa_L = 1 - objective.space.density_UL[u, :n]
    if objective.statistics:
        # a little of the plain ratio, since levels of equal error must not coincide
        abscissa_L = np.array(objective.statistics[u].output_errors) + 1e-3 * abscissa_L
    at = sorted(known, key=lambda level: abscissa_L[level])  # levels of several forms need not be in order of errors
    values = np.maximum.accumulate([known[level] for level in at])
    return np.asarray(np.interp(np.pad(abscissa_L, (0, levels - n), mode="edge"), abscissa_L[at], values - values[0]))


def additive_solution(space: SearchSpace, added_UL: Floats) -> Levels:
    """The policy within the budgets with the least sum of added losses, up to the gap of the last unit.

    Each unit takes the level with the least loss + price x cost. The price is found by bisection; costs are shares of
    the bounds (Everett 1963, generalised Lagrange multipliers). What is left of the budgets is filled. With several
    budgets, some may not bind and should have no price, so the best of a few mixes of their costs is taken. For up to
    FEW budgets the mixes are all products of MIXES. For more budgets that would be too many, and each mix leads to the
    next: a budget that a policy uses less than the others gets a lower price from then on.
    """
    prices, budgets = _Prices(space, added_UL), len(space.budgets)
    if budgets <= FEW:
        mixes = [mix for mix in itertools.product(MIXES, repeat=budgets) if max(mix) == 1]
        found = [prices.solution(np.array(mix)) for mix in mixes]
    else:
        found, mix_M = [], np.ones(budgets)
        for _ in range(ROUNDS):
            found.append(prices.solution(mix_M))
            mix_M = mix_M * prices.used(found[-1]) ** EAGERNESS
            mix_M /= max(float(mix_M.max()), 1e-300)
    return min(found, key=lambda levels: float(added_UL[np.arange(len(levels)), levels].sum()))


class _Prices:
    """Solutions with one price on a mix of the budgets' costs.

    Args:
        space: the units and budgets.
        added_UL: what each level of each unit adds to the loss.
    """

    def __init__(self, space: SearchSpace, added_UL: Floats) -> None:
        cost_MUL = np.array([space.costs[metric] for metric in space.budgets])
        least_M = SLACK * cost_MUL[:, :, 0].sum(axis=1) + 1e-300  # a bound may be 0
        share_MUL = cost_MUL / np.maximum(list(space.bounds.values()), least_M)[:, None, None]
        exists_UL = np.isfinite(share_MUL).all(axis=0)
        self._space, self._share_MUL = space, np.where(exists_UL, share_MUL, 0.0)
        self._loss_UL = np.where(exists_UL, added_UL, np.inf)

    def used(self, levels: Levels) -> Floats:
        """Of each budget, compared with the one that most is used of, `[M]`."""
        used_M = self._share_MUL[:, np.arange(len(levels)), levels].sum(axis=1)
        return np.asarray(used_M / max(float(used_M.max()), 1e-300))

    def solution(self, mix_M: Floats) -> Levels:
        """At the lowest price at which the budgets hold, filled up."""
        space, cost_UL = self._space, np.tensordot(mix_M, self._share_MUL, axes=1)

        def at(price: float) -> Levels:
            return tuple(int(level) for level in (self._loss_UL + price * cost_UL).argmin(axis=1))

        if space.feasible(at(0.0)):
            return at(0.0)
        low, high = 0.0, 1.0
        while not space.feasible(at(high)):
            if high > 1e12:
                return space.repair(space.sparsest)
            low, high = high, 4 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if space.feasible(at(middle)) else (middle, high)
        return space.repair(at(high))
