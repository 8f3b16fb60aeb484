"""Fits an additive table to times of whole networks: the time of each level of a unit, and a fixed rest.

Units of equal shape form a class and cost the same. Networks are measured with one class at each of its levels while
the others are dropped, halved and dense. This is needed because parts of a network hide each other's time (kernels
behind launches, weights in caches). Some further networks have a random level of every unit, like the results of a
search. The table is the additive one that fits all of them best.

Shapes: U units, N networks measured, X unknowns.
"""

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.level import Level
from autoprune.space import Unit

OTHERS = (0.0, 0.5, 1.0)  # where the other classes are kept: the share of their levels
MIXED = 16


@dataclass(frozen=True)
class UnitClass:
    """Units of one shape.

    Args:
        members: their numbers.
        levels: at which they are measured, from the least that there can be upwards: none of the groups where units of
            the class can be dropped.
    """

    members: tuple[int, ...]
    levels: tuple[Level, ...]


def classes_of(
    units: Sequence[Unit], layers: Sequence[str], places: Sequence[str] | None = None, stay: Collection[int] = ()
) -> list[UnitClass]:
    """The units of a network by their shape.

    Args:
        layers: the attention type of every block, on which the cost of an attention depends.
        places: what else the cost of a block's units depends on, such as the resolution of images there.
        stay: numbers of units that are never dropped.
    """
    members: dict[tuple[object, ...], list[int]] = {}
    for u, unit in enumerate(units):
        _, kind, block, *shape = astuple(unit)
        place = places[block] if places else ""
        members.setdefault((kind, layers[block] if unit.context_macs else "", place, u in stay, *shape), []).append(u)
    return [UnitClass(tuple(row), _upwards(units[row[0]], row[0] not in stay)) for row in members.values()]


def _upwards(unit: Unit, droppable: bool) -> tuple[Level, ...]:
    """The levels of a unit from the least upwards, and first none of its groups where it can be dropped."""
    levels = unit.levels[::-1]
    return levels if not droppable or 0 in [level.key for level in levels] else (Level(0, 0.0), *levels)


def design(classes: Sequence[UnitClass]) -> list[tuple[Level, ...]]:
    """The networks to be measured: a level of every unit."""
    networks: dict[tuple[Level, ...], None] = {}
    for share in OTHERS:
        others = [one.levels[round(share * (len(one.levels) - 1))] for one in classes]
        for c, one in enumerate(classes):
            networks |= {_spread(classes, [*others[:c], level, *others[c + 1 :]]): None for level in one.levels}
    return [*networks, *mixed(classes, MIXED, seed=0)]


def mixed(classes: Sequence[UnitClass], number: int, seed: int) -> list[tuple[Level, ...]]:
    """Networks with a random level of every unit."""
    rng = np.random.default_rng(seed)
    levels_of = {u: one.levels for one in classes for u in one.members}
    return [tuple(levels_of[u][int(rng.integers(len(levels_of[u])))] for u in sorted(levels_of)) for _ in range(number)]


def _spread(classes: Sequence[UnitClass], levels: Sequence[Level]) -> tuple[Level, ...]:
    """From classes to units."""
    of_unit = {u: level for one, level in zip(classes, levels, strict=True) for u in one.members}
    return tuple(of_unit[u] for u in sorted(of_unit))


def fit(
    classes: Sequence[UnitClass], levels_NU: Sequence[Sequence[Level]], time_N: NDArray[np.float64]
) -> tuple[float, list[list[float]]]:
    """Fit the time with every unit at its least, and for each class the additional time of a unit at each level.

    The fit minimises the squares of relative errors. The levels of a form are then replaced by the nearest ones that
    never fall, so that noise does not make a sparser level more expensive.
    """
    levels = [(one.members[0], level) for one in classes for level in one.levels[1:]]
    class_of = {u: one for one in classes for u in one.members}
    column = {level: x for x, level in enumerate(levels, 1)}
    count_NX = np.zeros((len(levels_NU), len(levels) + 1))
    count_NX[:, 0] = 1
    for n, levels_U in enumerate(levels_NU):
        for u, level in enumerate(levels_U):
            if level != class_of[u].levels[0]:
                count_NX[n, column[class_of[u].members[0], level]] += 1
    solution_X = np.linalg.lstsq(count_NX / time_N[:, None], np.ones(len(levels_NU)), rcond=None)[0]
    rows = [
        _smoothed(one.levels[1:], [float(solution_X[column[one.members[0], level]]) for level in one.levels[1:]])
        for one in classes
    ]
    return max(0.0, float(solution_X[0])), [[0.0, *(max(0.0, value) for value in row)] for row in rows]


def _smoothed(levels: Sequence[Level], values: Sequence[float]) -> list[float]:
    """The nearest values that never fall with the levels of any one form; the last level, dense, is of every form."""
    smooth = list(values)
    for form in dict.fromkeys(level.form for level in levels):
        at = [i for i, level in enumerate(levels) if level.form == form or i == len(levels) - 1]
        for i, value in zip(at, isotonic([smooth[i] for i in at]), strict=True):
            smooth[i] = value
    return smooth


def isotonic(values: Sequence[float]) -> list[float]:
    """The nearest sequence (least squares) that never falls: neighbours that do are pooled into their mean.

    Pool adjacent violators (Barlow et al. 1972). Ten lines, and no dependence on scikit-learn.
    """
    pools: list[tuple[float, int]] = []  # mean and length
    for value in values:
        mean, length = float(value), 1
        while pools and pools[-1][0] > mean:
            before, n = pools.pop()
            mean, length = (before * n + mean * length) / (n + length), n + length
        pools.append((mean, length))
    return [mean for mean, length in pools for _ in range(length)]
