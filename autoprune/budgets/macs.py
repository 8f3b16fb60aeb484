"""Multiply-accumulates per token or image, with attention scores; of what can be pruned, or of all with `--of model`.

fvcore and torch's FlopCounterMode count the same with eager attention. With scaled dot product attention on a CPU, both
leave the scores out.
"""

from autoprune.level import Level, form_of
from autoprune.space import Unit
from autoprune.workload import Workload


def macs(unit: Unit, level: Level, workload: Workload) -> float:
    """MACs per token of `unit` at a level and `workload.context` positions."""
    return form_of(level).macs(unit, level, workload.context)
