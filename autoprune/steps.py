"""Steps between the levels of a unit, from denser to sparser and back, whatever the order of their costs.

Levels are ordered by density. Within one form, a sparser level costs no more than a denser one. Levels of several forms
can break this: a share of single weights stores less than half of the groups, and takes as long as the dense unit. So
the last level need not be the cheapest one, and a step to a sparser level may save nothing.

Every unit has a least level: the one that leaves most of the budgets. A step towards it must lower the unit's price,
which is the sum of its shares of the budgets. Where costs fall from level to level, the least level is the last one,
and every step is to the next level.

Shapes: U units, L levels, M budgeted metrics.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.level import Level

ROUNDS = 32  # mixes of budgets that are tried for levels within all of them
TINY = 1e-9  # of dense: the least that costs are compared with, where a bound is 0
EAGERNESS = 2.0  # the power of a budget's use by which it counts more in the next mix

Rows = Sequence[Sequence[Sequence[float]]]
"""For each budgeted metric and unit, the cost of each level."""


class Steps:
    """The least level of every unit, and steps.

    Args:
        rows_MUL: costs; levels that a unit lacks are +inf.
        bounds_M: bounds on their sums.
        n_levels_U: number of levels of every unit.
    """

    def __init__(self, rows_MUL: Rows, bounds_M: Sequence[float], n_levels_U: Sequence[int]) -> None:
        self._n_levels_U = [int(n) for n in n_levels_U]
        self.least = tuple(n - 1 for n in self._n_levels_U)
        self._price_UL: NDArray[np.float64] | None = None
        self.falling_U = [True] * len(self._n_levels_U)
        if not rows_MUL:
            return
        cost_MUL = np.asarray(rows_MUL, dtype=np.float64)
        self.falling_U = [_falls(cost_MUL[:, u, :n]) for u, n in enumerate(self._n_levels_U)]
        if all(self.falling_U):
            return
        dense_M = cost_MUL[:, :, 0].sum(axis=1)
        share_MUL = cost_MUL / np.maximum(np.maximum(bounds_M, TINY * dense_M), 1e-300)[:, None, None]
        mix_M = np.ones(len(share_MUL))
        for _ in range(ROUNDS):
            self._price_UL = np.einsum("m,mul->ul", mix_M, np.where(np.isfinite(share_MUL), share_MUL, 0.0))
            self.least = tuple(_last_least(row[:n]) for row, n in zip(self._price_UL, self._n_levels_U, strict=True))
            used_M = share_MUL[:, range(len(self.least)), self.least].sum(axis=1)
            if np.all(used_M <= 1):
                return
            mix_M = mix_M * (used_M / max(float(used_M.max()), 1e-300)) ** EAGERNESS

    def thinner(self, u: int, level: int) -> int | None:
        """The nearest level of unit u on the way to its least one that has a lower price; None where it is there."""
        least = self.least[u]
        if level == least:
            return None
        if self.falling_U[u]:
            return level + 1
        assert self._price_UL is not None
        row, step = self._price_UL[u], 1 if level < least else -1
        return next((at for at in range(level + step, least, step) if row[at] < row[level]), least)

    def denser(self, u: int, level: int, floor: int, holds: Callable[[int], bool]) -> int | None:
        """The nearest denser level of unit u, not beyond `floor`, with which the budgets hold; None where none is.

        Args:
            u: its number.
            level: where it is now.
            floor: the densest level that it may have.
            holds: whether the budgets hold with a level of this unit.
        """
        last = level - 1 if self.falling_U[u] else floor
        return next((at for at in range(level - 1, last - 1, -1) if holds(at)), None)


def rises(levels: Sequence[Level], row: Sequence[float]) -> tuple[int, int] | None:
    """The first pair of levels of one form of which the sparser one costs more, or None.

    A level is sparser than another of its form if it has no higher density and keeps no more groups.
    """
    for sparser, level in enumerate(levels):
        for denser in range(sparser - 1, -1, -1):
            other = levels[denser]
            if other.form == level.form and other.kept >= level.kept:
                if row[sparser] > row[denser]:
                    return denser, sparser
                if other.kept == level.kept or len(other.options) == len(level.options) == 0:
                    break
    return None


def _falls(cost_ML: NDArray[np.float64]) -> bool:
    return bool(np.all(np.diff(cost_ML, axis=1) <= 0))


def _last_least(price_L: NDArray[np.float64]) -> int:
    """The last of the levels with the lowest price."""
    return len(price_L) - 1 - int(price_L[::-1].argmin())
