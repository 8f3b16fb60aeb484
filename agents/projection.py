"""Projects scores of groups onto the mask that keeps the best groups within the budgets.

Shapes: G groups of all units, U units.
"""

import numpy as np
from numpy.typing import NDArray

from autoprune.mask import Mask
from autoprune.space import SearchSpace

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
STEPS = 40  # of the bisection


class Projection:
    """Cuts scores at the lowest threshold at which the budgets hold (bisection, as Gao et al. 2024).

    Args:
        space: with costs of single groups.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.unit_G = np.repeat(np.arange(len(space.units)), space.groups)
        kinds = sorted({unit.kind for unit in space.units}, key=self._price, reverse=True)
        self._kinds = [np.array([unit.kind == kind for unit in space.units])[self.unit_G] for kind in kinds]

    def __call__(self, score_G: Floats) -> tuple[Bools, float]:
        """The groups that are kept, and the threshold.

        What the expensive groups leave of the budgets goes to the cheaper kinds, which get a lower threshold.
        """
        closed_G = np.zeros(len(score_G), dtype=bool)
        kept_G, threshold = self._cut(score_G, closed_G)
        for kind_G in self._kinds[:-1]:
            closed_G = closed_G | kind_G
            kept_G, _ = self._cut(np.where(closed_G, np.where(kept_G, np.inf, -np.inf), score_G), closed_G)
        return kept_G, threshold

    def pack(self, kept_G: Bools) -> Mask:
        """The mask that keeps these groups."""
        return Mask.pack(np.split(kept_G, np.cumsum(self.space.groups)[:-1]))

    def _cut(self, score_G: Floats, closed_G: Bools) -> tuple[Bools, float]:
        open_G = score_G[~closed_G]
        low, high = float(open_G.min()) - 1.0, float(open_G.max()) + 1.0
        if self._fits(score_G > low):
            return score_G > low, low
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._fits(score_G > middle) else (middle, high)
        return score_G > high, high

    def _fits(self, kept_G: Bools) -> bool:
        counts_U = np.bincount(self.unit_G[kept_G], minlength=len(self.space.units))
        return self.space.counts_fit([int(n) * unit.bundle for n, unit in zip(counts_U, self.space.units, strict=True)])

    def _price(self, kind: str) -> float:
        """Of one group of a kind, as a share of the budgets."""
        shares = [
            self.space.group_costs[metric][u][-1] / self.space.groups[u] / max(bound, 1e-300)
            for metric, bound in self.space.bounds.items()
            for u, unit in enumerate(self.space.units)
            if unit.kind == kind
        ]
        return float(np.mean(shares))
