"""Magnitude thresholds as actions, as PuRL has them (Gupta et al. 2020, sec. 3.1).

An action is a multiple of the standard deviation of a unit's weights. Weights with a smaller magnitude leave. The share
that stays is looked up in the statistics of the unit's weights, and the level whose density is nearest is taken. Where
there are no statistics, the weights are taken to be normally distributed.

Shapes: U units, T thresholds, L levels.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.objective import Objective
from autoprune.unit_statistics import MAGNITUDE_STEP, UnitStatistics

THRESHOLDS = tuple(k / 10 for k in range(23))
"""PuRL's actions: 0, 0.1, ... 2.2 standard deviations."""


def levels_at(objective: Objective, thresholds: Sequence[float]) -> NDArray[np.int64]:
    """The level that each threshold is for each unit, `[U, T]`.

    Args:
        objective: knows the units, their levels and their statistics.
        thresholds: in standard deviations.
    """
    known = objective.statistics or (None,) * len(objective.space.units)
    kept_UT = np.array([[share_kept(one, threshold) for threshold in thresholds] for one in known])
    space = objective.space
    distance_UTL = np.abs(space.density_UL[:, None, :] - kept_UT[:, :, None])
    lacking_UL = np.arange(distance_UTL.shape[2]) >= space.n_levels_U[:, None]
    distance_UTL[np.broadcast_to(lacking_UL[:, None, :], distance_UTL.shape)] = np.inf
    return np.asarray(distance_UTL.argmin(axis=2))


def share_kept(statistics: UnitStatistics | None, threshold: float) -> float:
    """The share of a unit's weights whose magnitude is above a threshold, in standard deviations.

    Args:
        statistics: of the unit; those of an earlier version do not have its magnitudes.
        threshold: at least 0.
    """
    below = () if statistics is None else statistics.magnitudes
    if not below:
        return 1 - math.erf(threshold / math.sqrt(2))
    at = MAGNITUDE_STEP * np.arange(len(below) + 1)
    return float(1 - np.interp(threshold, at, (0.0, *below)))
