"""From times of whole networks to an additive table: what each level of a unit takes, and what is left.

Units of equal shape form a class and cost the same. A network is measured with one class at each of its levels and the
others dropped, halved and dense: parts of a network hide each other's time (kernels behind launches, weights in
caches), so what a level takes depends on what else is there. Beside these uniform networks some are measured with a
random level of every unit, as what a search finds has. The table is the additive one nearest to all of them.

Shapes: U units, N networks measured, X unknowns.
"""

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.space import Unit

OTHERS = (0.0, 0.5, 1.0)  # where the other classes are kept: the share of their levels
MIXED = 16


@dataclass(frozen=True)
class UnitClass:
    """Units of one shape.

    Args:
        members: their numbers.
        kept: the groups at which they are measured, from the fewest that there can be upwards: 0 where units of the
            class can be dropped.
    """

    members: tuple[int, ...]
    kept: tuple[int, ...]


def classes_of(
    units: Sequence[Unit], layers: Sequence[str], places: Sequence[str] | None = None, stay: Collection[int] = ()
) -> list[UnitClass]:
    """The units of a network by their shape.

    Args:
        layers: the attention type of every block, which sets what an attention costs.
        places: what else about a block sets what any of its units costs: of images their resolution there.
        stay: numbers of units that are never dropped.
    """
    members: dict[tuple[object, ...], list[int]] = {}
    for u, unit in enumerate(units):
        _, kind, block, *shape = astuple(unit)
        place = places[block] if places else ""
        members.setdefault((kind, layers[block] if unit.context_macs else "", place, u in stay, *shape), []).append(u)
    return [
        UnitClass(tuple(row), tuple(sorted({*units[row[0]].kept, *(() if row[0] in stay else (0,))})))
        for row in members.values()
    ]


def design(classes: Sequence[UnitClass]) -> list[tuple[int, ...]]:
    """The networks to be measured: groups kept of every unit."""
    networks: dict[tuple[int, ...], None] = {}
    for share in OTHERS:
        others = [one.kept[round(share * (len(one.kept) - 1))] for one in classes]
        for c, one in enumerate(classes):
            networks |= {_spread(classes, [*others[:c], kept, *others[c + 1 :]]): None for kept in one.kept}
    return [*networks, *mixed(classes, MIXED, seed=0)]


def mixed(classes: Sequence[UnitClass], number: int, seed: int) -> list[tuple[int, ...]]:
    """Networks with a random level of every unit."""
    rng = np.random.default_rng(seed)
    kept_of = {u: one.kept for one in classes for u in one.members}
    return [tuple(int(rng.choice(kept_of[u])) for u in sorted(kept_of)) for _ in range(number)]


def _spread(classes: Sequence[UnitClass], kept: Sequence[int]) -> tuple[int, ...]:
    """From classes to units."""
    of_unit = {u: groups for one, groups in zip(classes, kept, strict=True) for u in one.members}
    return tuple(of_unit[u] for u in sorted(of_unit))


def fit(
    classes: Sequence[UnitClass], kept_NU: Sequence[Sequence[int]], time_N: NDArray[np.float64]
) -> tuple[float, list[list[float]]]:
    """What is left when of every unit the least is kept, and for each class what one unit takes more at its `kept`.

    Least squares of relative errors, since those are what a budget is kept within; then each row the nearest one that
    never falls, so that noise makes no sparser level dearer.
    """
    levels = [(one.members[0], kept) for one in classes for kept in one.kept[1:]]
    class_of = {u: one for one in classes for u in one.members}
    column = {level: x for x, level in enumerate(levels, 1)}
    count_NX = np.zeros((len(kept_NU), len(levels) + 1))
    count_NX[:, 0] = 1
    for n, kept_U in enumerate(kept_NU):
        for u, kept in enumerate(kept_U):
            if kept != class_of[u].kept[0]:
                count_NX[n, column[class_of[u].members[0], kept]] += 1
    solution_X = np.linalg.lstsq(count_NX / time_N[:, None], np.ones(len(kept_NU)), rcond=None)[0]
    rows = [isotonic([float(solution_X[column[one.members[0], kept]]) for kept in one.kept[1:]]) for one in classes]
    return max(0.0, float(solution_X[0])), [[0.0, *(max(0.0, value) for value in row)] for row in rows]


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
