"""Parameters of what can be pruned, or of the whole network with `--of model`."""

from autoprune.level import Level, form_of
from autoprune.space import Unit
from autoprune.workload import Workload


def params(unit: Unit, level: Level, workload: Workload) -> float:
    """Parameters of `unit` at a level."""
    return form_of(level).params(unit, level)
