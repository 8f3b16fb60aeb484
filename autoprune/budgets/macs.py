"""Multiply-accumulates per token or image, attention scores over the whole context included (as fvcore counts)."""

from autoprune.space import Unit
from autoprune.workload import Workload


def macs(unit: Unit, kept: int, workload: Workload) -> float:
    """MACs per token of `unit` with `kept` groups at `workload.context` positions."""
    return unit.macs(kept, workload.context)
