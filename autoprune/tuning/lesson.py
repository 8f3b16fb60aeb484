"""What is taught: the port of a lesson, and the loss that texts and images share.

Shapes: N predictions, V vocabulary (or classes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.tuning.settings import Kind, Tuning


@dataclass(frozen=True)
class Worth:
    """What a network is worth on the validation split; lessons add numbers of their own.

    Args:
        ce: cross-entropy, nats per token or image.
    """

    ce: float

    def told(self) -> str:
        """In words."""
        return f"cross-entropy {self.ce:.4f}"


class Lesson(Protocol):
    """Examples, what the dense network thinks of them, and the validation split."""

    dense: nn.Module
    kind: Kind
    count: int
    """Examples to learn from, which are known by number."""
    tokens: int
    """Of an example; 1 of an image."""
    as_trained: bool
    """Whether BatchNorm and dropout do what they did in training."""

    def loss(self, student: nn.Module, some: Tensor, tuning: Tuning, draw: torch.Generator) -> Tensor:
        """Mean loss of a network on examples, a scalar with derivatives.

        Args:
            student: the network.
            some: numbers of examples, `[n]` on the CPU.
            tuning: weight, temperature.
            draw: of what is random besides.
        """
        ...

    def measured(self, network: nn.Module, progress: Callable[[float], None] = lambda share: None) -> Worth:
        """What a network is worth; `progress` is told what share is done."""
        ...


def blended(own_NV: Tensor, taught: Callable[[], Tensor], labels_N: Tensor, tuning: Tuning) -> Tensor:
    """`(1 - weight) * cross-entropy + weight * T^2 * KL(dense || pruned)` at temperature T (Hinton et al. 2015).

    Args:
        own_NV: logits.
        taught: gives the dense network's logits, and is not asked where they do not count.
        labels_N: -100 where nothing is to be predicted.
        tuning: weight and temperature.
    """
    loss = own_NV.new_zeros((), dtype=torch.float32)
    if tuning.weight < 1:
        loss = loss + (1 - tuning.weight) * functional.cross_entropy(own_NV.float(), labels_N)
    if tuning.weight > 0:
        with torch.no_grad():
            dense_NV = (taught().float() / tuning.temperature).log_softmax(-1)
        log_NV = (own_NV.float() / tuning.temperature).log_softmax(-1)
        shown = functional.kl_div(log_NV, dense_NV, reduction="batchmean", log_target=True)
        loss = loss + tuning.weight * tuning.temperature**2 * shown
    return loss
