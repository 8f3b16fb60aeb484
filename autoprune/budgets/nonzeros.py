"""Weights that are not zero, of what can be pruned: what a network would store in a format without zeros."""

from autoprune.level import Level, form_of
from autoprune.space import Unit
from autoprune.workload import Workload


def nonzeros(unit: Unit, level: Level, workload: Workload) -> float:
    """Parameters of `unit` at a level that are not zero. A parameter with few bits counts as one."""
    return form_of(level).nonzeros(unit, level)
