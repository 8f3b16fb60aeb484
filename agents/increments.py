"""Estimates of what each level of each unit adds to the next denser one, pooled over slopes around several policies.

Slopes (`Objective.slopes`) cover a few levels to either side of one policy. Successive policies of a search are
similar, so the slopes of earlier ones are kept. They make the estimates less noisy and cover more levels.

Shapes: U units, L levels, D = L - 1 increments.
"""

import numpy as np
from numpy.typing import NDArray

from autoprune.space import Levels, SearchSpace

Floats = NDArray[np.float64]

OVERSHOT = 0.56  # what single levels did, of what slopes said, in measurements (docs/decisions/)


class Increments:
    """Args:
    space: of the search.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._n_levels_U = space.n_levels_U
        self._mixed_U = [len({level.form for level in unit.levels[1:]}) > 1 for unit in space.units]
        shape = len(space.units), int(space.n_levels_U.max()) - 1
        self._sums_UD, self._weights_UD = np.zeros(shape), np.zeros(shape)

    def add(self, slopes_UL: Floats, sequences: int) -> None:
        """Add slopes around a policy from a number of sequences; NaN is unknown."""
        increments_UD = np.diff(slopes_UL, axis=1)
        known_UD = np.isfinite(increments_UD)
        self._sums_UD[known_UD] += sequences * increments_UD[known_UD]
        self._weights_UD += sequences * known_UD

    def around(self, policy: Levels) -> Floats:
        """Change of the loss from a policy's levels to others, `[U, L]`; NaN where an increment between is unknown."""
        with np.errstate(invalid="ignore"):
            increments_UD = self._sums_UD / self._weights_UD
        changes_UL = np.zeros((len(policy), increments_UD.shape[1] + 1))
        for row_L, steps_D, level in zip(changes_UL, increments_UD, policy, strict=True):
            row_L[level + 1 :] = np.cumsum(steps_D[level:])
            row_L[:level] = -np.cumsum(steps_D[:level][::-1])[::-1]
        return changes_UL

    def table(self) -> Floats:
        """What each level alone adds to level 0; an unknown increment is as the nearest known ones.

        It never falls where a unit has levels of one form. Of two forms, the sparser level may be the better one.
        """
        added_UL = np.zeros((len(self._sums_UD), self._sums_UD.shape[1] + 1))
        for row_L, sums_D, weights_D, n, mixed in zip(
            added_UL, self._sums_UD, self._weights_UD, self._n_levels_U, self._mixed_U, strict=True
        ):
            known = np.flatnonzero(weights_D)
            if len(known):
                steps = OVERSHOT * np.maximum(sums_D[known] / weights_D[known], -np.inf if mixed else 0.0)
                row_L[1:n] = np.maximum(np.cumsum(np.interp(np.arange(n - 1), known, steps)), 0.0)
            row_L[n:] = row_L[n - 1]
        return added_UL
