"""Builds the levels of embeddings and of a head, which are units of a single group (cutting/ends.py)."""

import torch
from torch import Tensor

from autoprune.cutting.live import LiveWidth
from autoprune.levels.criterion import Reconstruction
from autoprune.levels.form import Building, live_form
from autoprune.levels.measure_unit import measure
from autoprune.levels.tensors import owned
from autoprune.space import Unit
from autoprune.unit_statistics import UnitStatistics


def end_of(unit: Unit, width: LiveWidth, dtype: torch.dtype) -> tuple[dict[str, Tensor], UnitStatistics]:
    """The file of embeddings or of a head, and their statistics. Their inputs are not known."""
    inputs = width.consumer_weight.shape[1]
    tensors: dict[str, Tensor] = {"order": torch.zeros(1, dtype=torch.int64)}
    unknown = torch.zeros(0, 0, dtype=torch.float64)
    numbers = torch.arange(inputs, device=width.consumer_weight.device)
    of = Building(unit, width, unknown, None, numbers, False, _of_no_inputs, dtype)
    for number, level in enumerate(unit.levels):
        tensors |= {f"{name}.{number}": tensor for name, tensor in live_form(level).build(level, of).items()}
    alike_DD = torch.eye(inputs, dtype=torch.float64)
    return tensors, measure(unit, width, alike_DD, tensors, owned(tensors, unit.levels))


def _of_no_inputs() -> Reconstruction:
    raise AssertionError("ends keep all of their inputs")
