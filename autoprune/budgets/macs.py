"""Multiply-accumulates per token or image, attention scores over the whole context included.

That is what fvcore and torch's FlopCounterMode count with eager attention. With scaled dot product attention on a CPU
both leave the scores out.
"""

from autoprune.space import Unit
from autoprune.workload import Workload


def macs(unit: Unit, kept: int, workload: Workload) -> float:
    """MACs per token of `unit` with `kept` groups at `workload.context` positions."""
    return unit.macs(kept, workload.context)
