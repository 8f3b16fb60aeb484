"""A law of recovery: the validation loss as a function of the tokens trained on, from a few points of one training.

The P^2 law (Chen et al. 2025, "P^2 Law: Scaling Law for Post-Training After Model Pruning", ACL) is

    L(N, D, r) = L0 + (1 / r)^gamma (1 / N)^delta (N_C / N^alpha + D_C / D^beta + E)

with the dense loss L0, size N, pruning rate r and tokens D. For one network at one rate all but D is constant, which
leaves `floor + gain * D^-beta`. That is infinite before any training, where the loss is known, so here it is

    L(D) = floor + gain * (1 + D / scale)^-power

which is the same for D far above `scale`. D counts every token by the square root of its learning rate's share of the
highest one (`counted`). In plain tokens the end of a schedule, where the rate falls to 0 and nothing is learned any
more, looks as if there were nothing left to learn (docs/decisions/).

Floor and gain are linear and solved in closed form; scale and power are searched on a grid, which is then refined.
Nothing is said of curves with too few points.

Shapes: P points, G places of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
"""Tokens as `counted` has them, and the validation loss after them."""
LEAST = 7
"""Points that are needed, the one before training included."""
LEAST_HALF = 5
"""Points up to half of the tokens, on which the law is tried."""
ROOT = 0.5
"""The power of the learning rate's share by which a token counts."""
SPAN = 4.0
"""Times the tokens of the first point after the start that the last point must have."""
FREE = 4
"""Numbers that are fitted."""
T90 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
"""Student's t for 90 % between both sides, by degrees of freedom from 1 on; the last holds for more, too."""
POWERS, SCALES = np.geomspace(0.05, 3.0, 60), np.geomspace(0.003, 20.0, 60)
"""The grid: powers, and scales in shares of the last point's tokens."""
REFINED, FINER, NEAR = 10, 15, 3
"""How often the grid is refined, its places then, and how many places around the best it covers on each side."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Forecast:
    """What so many tokens would give.

    Args:
        tokens: in all, each counted as one.
        loss: the most likely validation loss.
        low: the lower end of the interval.
        high: its upper end.
    """

    tokens: int
    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class Law:
    """A fitted law.

    Args:
        points: those it was fitted to.
        tokens: of a whole training, each counted as one.
        whole: the same, as `counted` has them.
        floor: the loss that training comes near to.
        gain: what training can win.
        scale: tokens after which it begins to slow down.
        power: how fast it slows down.
        missed: how far the law of the first half of the tokens was from any later point, at most.
    """

    points: tuple[Point, ...]
    tokens: int
    whole: float
    floor: float
    gain: float
    scale: float
    power: float
    missed: float

    def at(self, tokens: float) -> float:
        """The loss after so many tokens, as `counted` has them."""
        return _value((self.floor, self.gain, self.scale, self.power), tokens)

    def forecast(self, times: float) -> Forecast:
        """What a training of `times` the tokens would give, whose learning rate falls over all of them.

        The interval holds every law that fits the points nearly as well (a likelihood interval of 90 %). It is widened
        by what the law of the first half missed, once for each doubling of the tokens.
        """
        low, high = _interval(self.points, times * self.whole)
        beside = self.missed * float(np.log2(times))
        loss = self.at(times * self.whole)
        return Forecast(round(times * self.tokens), loss, max(0.0, min(low, loss) - beside), max(high, loss) + beside)


def counted(rates: Sequence[float], tokens: int) -> list[float]:
    """Tokens after each number of steps, from 0 steps on, each counted by the root of its learning rate.

    Args:
        rates: of every step, as shares of the highest learning rate.
        tokens: in a step.
    """
    return [0.0, *(tokens * np.cumsum(np.power(rates, ROOT))).tolist()]


def fit_law(points: Sequence[Point], tokens: int, whole: float) -> Law | None:
    """The law of a training; None if its points are too few or too close, or if the loss did not fall.

    Args:
        points: by tokens as `counted` has them, from the start (0 tokens) on.
        tokens: of the whole training, each counted as one.
        whole: the same, as `counted` has them.
    """
    kept = tuple(sorted((float(at), float(loss)) for at, loss in dict(points).items() if np.isfinite(loss)))
    half = [one for one in kept if 2 * one[0] <= kept[-1][0]]
    if len(kept) < LEAST or len(half) < LEAST_HALF or kept[0][0] != 0 or kept[-1][0] < SPAN * kept[1][0]:
        return None
    if kept[-1][1] >= kept[0][1]:
        return None
    tried = _fitted(half)
    missed = max(abs(_value(tried, at) - loss) for at, loss in kept[len(half) :])
    return Law(kept, tokens, whole, *_fitted(kept), missed)


def _value(fitted: tuple[float, float, float, float], tokens: float) -> float:
    floor, gain, scale, power = fitted
    return float(floor + gain * (1 + tokens / scale) ** -power)


def _fitted(points: Sequence[Point]) -> tuple[float, float, float, float]:
    """Floor, gain, scale and power with the least squares."""
    x_P, y_P = _arrays(points)
    scales, powers = x_P[-1] * SCALES, POWERS
    for _ in range(1 + REFINED):
        scale_G, power_G = (grid.ravel() for grid in np.meshgrid(scales, powers))
        floor_G, gain_G, error_G = _solved(_basis(x_P, scale_G, power_G), y_P)
        best = int(np.argmin(error_G))
        found = float(floor_G[best]), float(gain_G[best]), float(scale_G[best]), float(power_G[best])
        scales, powers = _around(scales, found[2]), _around(powers, found[3])
    return found


def _around(grid: Floats, value: float) -> Floats:
    """A finer grid around a value."""
    at = int(np.argmin(np.abs(grid - value)))
    return np.geomspace(grid[max(0, at - NEAR)], grid[min(len(grid) - 1, at + NEAR)], FINER)


def _interval(points: Sequence[Point], tokens: float) -> tuple[float, float]:
    """The lowest and the highest loss of all laws that fit nearly as well as the best."""
    x_P, y_P = _arrays(points)
    scale_G, power_G = (grid.ravel() for grid in np.meshgrid(x_P[-1] * SCALES, POWERS))
    best = _fitted(points)
    scale_G, power_G = np.append(scale_G, best[2]), np.append(power_G, best[3])
    basis_GP = _basis(x_P, scale_G, power_G)
    floor_G, gain_G, error_G = _solved(basis_GP, y_P)
    freedom = len(x_P) - FREE
    most = error_G.min() * (1 + T90[min(freedom, len(T90)) - 1] ** 2 / freedom)
    value_G = (1 + tokens / scale_G) ** -power_G
    mean_G = basis_GP.mean(1)
    spread_G = ((basis_GP - mean_G[:, None]) ** 2).sum(1)
    leverage_G = 1 / len(x_P) + (value_G - mean_G) ** 2 / np.maximum(spread_G, 1e-30)
    reach_G = np.sqrt(np.maximum(most - error_G, 0) * leverage_G)
    loss_G, near_G = floor_G + gain_G * value_G, error_G <= most
    return float((loss_G - reach_G)[near_G].min()), float((loss_G + reach_G)[near_G].max())


def _arrays(points: Sequence[Point]) -> tuple[Floats, Floats]:
    x_P, y_P = np.array(points, dtype=np.float64).T
    return x_P, y_P


def _basis(x_P: Floats, scale_G: Floats, power_G: Floats) -> Floats:
    return np.asarray((1 + x_P[None] / scale_G[:, None]) ** -power_G[:, None])


def _solved(basis_GP: Floats, y_P: Floats) -> tuple[Floats, Floats, Floats]:
    """Floor and gain, neither below 0, and the sum of squares, at each place of the grid."""
    mean_G, mean = basis_GP.mean(1), y_P.mean()
    spread_G = np.maximum(((basis_GP - mean_G[:, None]) ** 2).sum(1), 1e-30)
    gain_G = np.maximum(0, ((basis_GP - mean_G[:, None]) * (y_P - mean)).sum(1) / spread_G)
    floor_G = mean - gain_G * mean_G
    below_G = floor_G < 0
    gain_G = np.where(below_G, (basis_GP * y_P).sum(1) / (basis_GP**2).sum(1), gain_G)
    floor_G = np.where(below_G, 0, floor_G)
    error_G = ((floor_G[:, None] + gain_G[:, None] * basis_GP - y_P) ** 2).sum(1)
    return floor_G, gain_G, error_G
