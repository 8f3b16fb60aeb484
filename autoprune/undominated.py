"""Leaves out levels of mixed forms that no policy should have, where every budget is on something that is stored.

A level is dominated if another level of the unit costs no more in every budget and loses no more of the outputs, by the
output errors of the store. Half of the groups in 16 bits take as much as all of them in 8 bits and lose far more.
Without such levels, a step to the next level is a small change again. A level that saves hardly anything is left out.

Budgets on anything else, as a latency, can need such levels, and keep them.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from autoprune.config import SearchConfig
from autoprune.level import GROUPS, Level, form_of
from autoprune.levels.form import live_form
from autoprune.levels.store import LevelStore
from autoprune.space import SearchSpace, Unit
from autoprune.unit_statistics import UnitStatistics
from autoprune.wording import STORED

LEAST = 0.03
"""Of a unit's dense cost: what a level saves at least against one that loses less."""
HANDICAP = 2.0
"""By how much the error of removed groups counts more than the same error of rounding, which is like noise."""


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
    if one_form or not set(config.budgets) <= set(COUNTED):
        return space, store
    metrics = [COUNTED[metric] for metric in config.budgets]

    def costs(unit: Unit) -> list[list[float]]:
        return [[cost(unit, level, itemsize) for cost in metrics] for level in unit.levels]

    chosen = [_best(unit, known, costs(unit)) for unit, known in zip(space.units, store.statistics, strict=True)]
    units = [
        replace(unit, levels=tuple(unit.levels[number] for number in some))
        for unit, some in zip(space.units, chosen, strict=True)
    ]
    return space_of(units), store.choosing(chosen)


def _best(unit: Unit, known: UnitStatistics, costs: list[list[float]]) -> list[int]:
    """Numbers of the levels that stay, in their order.

    Args:
        unit: with all levels.
        known: its output errors.
        costs: of each level, one number for each budget.
    """
    forms = {level.form for level in unit.levels[1:]}
    if len(forms) == 1 and live_form(unit.levels[1]).keeps_zeros:  # nothing is mixed
        return list(range(len(unit.levels)))
    errors = list(known.output_errors)
    stay = set(_front(range(len(costs)), costs, errors))
    if any(live_form(level).stays for level in unit.levels):
        # levels of all groups are also compared with each other alone, so that they are there whatever else is
        whole = [number for number, level in enumerate(unit.levels) if level.kept == unit.groups]
        weighed = [error if n in whole else HANDICAP * error for n, error in enumerate(errors)]
        stay = set(_front(whole, costs, errors)) | set(_front(range(len(costs)), costs, weighed)) - set(whole)
    smallest = [
        min(range(len(costs)), key=lambda number: (costs[number][m], errors[number])) for m in range(len(costs[0]))
    ]
    return sorted({*stay, *smallest}, key=lambda number: (-unit.levels[number].density, number))


def _front(some: Iterable[int], costs: list[list[float]], errors: list[float]) -> list[int]:
    """Those of some levels that no other one of them dominates, the dense one first."""
    stay = [0]
    for number in sorted(some, key=lambda number: (errors[number], costs[number], number)):
        # each one loses more than those before it, so it must save something against each of them
        if all(_saves(costs[number], costs[other], costs[0]) for other in stay):
            stay.append(number)
    return stay


def _saves(costs: list[float], others: list[float], dense: list[float]) -> bool:
    """Whether a level costs less than another one in any budget, by more than hardly anything."""
    return any(cost <= other - LEAST * whole for cost, other, whole in zip(costs, others, dense, strict=True))


def _stored(unit: Unit, level: Level, itemsize: int) -> float:
    return form_of(level).nbytes(unit, level, itemsize)


def _params(unit: Unit, level: Level, itemsize: int) -> float:
    return form_of(level).params(unit, level)


def _nonzeros(unit: Unit, level: Level, itemsize: int) -> float:
    return form_of(level).nonzeros(unit, level)


COUNTED = {**dict.fromkeys(STORED, _stored), "params": _params, "nonzeros": _nonzeros}
"""Metrics under which a level can be dominated -> what it costs."""
