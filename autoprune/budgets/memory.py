"""Bytes of the weights of the whole network as they are stored, embeddings and head included.

Dense weights have the dtype of the checkpoint. Weights of the form `bits` are packed, with scales and zero points
(levels/quantising/storage.py). The part of the network that no unit covers is the fixed cost.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from autoprune.level import Level, form_of
from autoprune.ports.metric import Metric, Network, of_network
from autoprune.space import Unit
from autoprune.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn


class Memory(Metric):
    """Bytes of weights.

    Args:
        itemsize: bytes of a dense weight.
        rest: bytes of what is in no unit.
    """

    def __init__(self, itemsize: int, rest: float) -> None:
        self._itemsize, self._rest = itemsize, rest

    def __call__(self, unit: Unit, level: Level, workload: Workload) -> float:
        """Bytes of a unit's weights at a level."""
        return form_of(level).nbytes(unit, level, self._itemsize)

    @property
    def fixed(self) -> float:
        """Bytes of the weights outside of the units."""
        return self._rest

    @property
    def whole(self) -> bool:
        """The total is of the whole network."""
        return True

    @property
    def measure(self) -> str:
        """Bytes."""
        return "B"


@of_network
def memory(network: Network) -> Memory:
    """The metric of a network."""
    itemsize = network.itemsize or next(network.view.model.parameters()).element_size()
    dense = [Level.of_groups(unit.groups, unit.groups) for unit in network.units]
    units = sum(form_of(level).nbytes(unit, level, itemsize) for unit, level in zip(network.units, dense, strict=True))
    return Memory(itemsize, max(0.0, weight_bytes(network.view.model, itemsize) - units))


def weight_bytes(model: "nn.Module", itemsize: int) -> int:
    """Bytes of a network's weights in a file. Tied weights count once. Buffers that are saved keep their dtype."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters * itemsize + sum(tensor.numel() * tensor.element_size() for tensor in _saved_buffers(model))


def _saved_buffers(model: "nn.Module") -> "Iterator[Tensor]":
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in names and id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor
