"""Leaves out levels of mixed forms that no policy should have, where storage is all that is bounded.

A level is dominated if another level of the unit takes no more bytes and loses no more of the outputs, by the output
errors of the store. Half of the groups in 16 bits take as much as all of them in 8 bits and lose far more. Without such
levels, a step to the next level is a small change again. A level that saves hardly any bytes is left out, too.

Budgets on anything else, as a latency, can need such levels, and keep them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from autoprune.config import SearchConfig
from autoprune.level import GROUPS, form_of
from autoprune.levels.store import LevelStore
from autoprune.space import SearchSpace, Unit
from autoprune.unit_statistics import UnitStatistics
from autoprune.wording import STORED

LEAST = 0.03
"""Of a unit's dense bytes: what a level saves at least against the one before it."""
HANDICAP = 2.0
"""By how much the error of a removed group counts more than the same error of rounding, which is like noise."""


def undominated(
    space: SearchSpace,
    store: LevelStore,
    config: SearchConfig,
    itemsize: int,
    space_of: Callable[[list[Unit]], SearchSpace],
) -> tuple[SearchSpace, LevelStore]:
    """The space and the store without dominated levels; as they are where they have levels of one form alone.

    Args:
        space: all levels.
        store: the same.
        config: its budgets and forms.
        itemsize: bytes of a dense weight.
        space_of: makes the space of units.
    """
    one_form = all(level.form == GROUPS for unit in space.units for level in unit.levels)
    if one_form or not set(config.budgets) <= set(STORED):
        return space, store
    chosen = [_best(unit, known, itemsize) for unit, known in zip(space.units, store.statistics, strict=True)]
    units = [
        replace(unit, levels=tuple(unit.levels[number] for number in some))
        for unit, some in zip(space.units, chosen, strict=True)
    ]
    return space_of(units), store.choosing(chosen)


def _best(unit: Unit, known: UnitStatistics, itemsize: int) -> list[int]:
    """Numbers of the levels that stay, in their order.

    Levels that keep all groups are compared with each other alone, so that no search is worse for more forms.
    """
    sizes = [form_of(level).nbytes(unit, level, itemsize) for level in unit.levels]
    errors = [
        error * (1.0 if level.kept == unit.groups else HANDICAP)
        for level, error in zip(unit.levels, known.output_errors, strict=True)
    ]
    every = range(len(sizes))
    stay = {*_front([n for n in every if unit.levels[n].kept == unit.groups], sizes, errors)}
    stay |= {n for n in _front(every, sizes, errors) if unit.levels[n].kept < unit.groups}
    smallest = min(every, key=lambda number: (sizes[number], errors[number]))
    return sorted({*stay, smallest}, key=lambda number: (-unit.levels[number].density, number))


def _front(some: Sequence[int], sizes: Sequence[float], errors: Sequence[float]) -> list[int]:
    """Those of some levels that no other one of them dominates, the dense one first."""
    least, stay = sizes[0], [0]
    for number in sorted(some, key=lambda number: (errors[number], sizes[number], number)):
        if sizes[number] <= least - LEAST * sizes[0]:  # it loses more than those before it, so it must be smaller
            stay.append(number)
            least = sizes[number]
    return stay
