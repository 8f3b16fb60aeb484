"""Parameters: weights, biases and norms that belong to a unit."""

from autoprune.space import Unit
from autoprune.workload import Workload


def params(unit: Unit, kept: int, workload: Workload) -> float:
    """Parameters of `unit` with `kept` groups."""
    return unit.params(kept)
