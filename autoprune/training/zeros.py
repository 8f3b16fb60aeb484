"""Weights that are zero at a level of single weights stay zero while the network is trained.

A module whose weight has such zeros carries the mark `zeros_stay`. Training multiplies its gradient with a
mask. Where the gradient is 0, no optimizer here moves a weight that is 0. Adapters add nothing to it (adapters.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

MARK = "zeros_stay"


@contextmanager
def marked(modules: Iterable[nn.Module], mark: str = MARK) -> Iterator[None]:
    """Mark modules for a while, in which the network is copied: copies keep the mark."""
    found = list(modules)
    for module in found:
        setattr(module, mark, True)
    try:
        yield
    finally:
        for module in found:
            delattr(module, mark)


def mask_of(layer: nn.Module) -> Tensor | None:
    """1 where a marked layer's weight is not zero, and 0 elsewhere, in its shape; None of other layers."""
    held: Any = layer
    return (held.weight.detach() != 0).to(held.weight.dtype) if getattr(layer, MARK, False) else None


class Masks:
    """The masks of a network in training, as its weights are now; of a sharded weight, of this process' part.

    Args:
        student: the network.
        weights: those that are trained.
    """

    def __init__(self, student: nn.Module, weights: Sequence[nn.Parameter]) -> None:
        trained = {id(weight) for weight in weights}
        self._masks: list[tuple[nn.Parameter, Tensor]] = []
        for module in student.modules():
            weight: Any = getattr(module, "weight", None)
            if getattr(module, MARK, False) and id(weight) in trained:
                self._masks.append((weight, _local(weight).detach() != 0))

    @torch.no_grad()
    def apply(self) -> None:
        """Set the gradients of weights that stay zero to 0."""
        for weight, mask in self._masks:
            if weight.grad is not None:
                _local(weight.grad).mul_(mask)


def _local(tensor: Any) -> Tensor:
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part
