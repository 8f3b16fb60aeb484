"""Multiply-accumulates per token or image, including attention scores over the whole context.

fvcore and torch's FlopCounterMode count the same with eager attention. With scaled dot product attention on a CPU, both
leave the scores out.
"""

from autoprune.level import Level, form_of
from autoprune.space import Unit
from autoprune.workload import Workload


def macs(unit: Unit, level: Level, workload: Workload) -> float:
    """MACs per token of `unit` at a level and `workload.context` positions."""
    return form_of(level).macs(unit, level, workload.context)
