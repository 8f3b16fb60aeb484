"""The processes that train one network together. `ALONE` is one process by itself; `processes.py` has several.

Every process goes through the same steps of the same training. What only one of them can know, such as the time, they
agree on, so that all end and save after the same step.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class Team:
    """One process by itself. A class for several processes overrides its methods.

    Attributes:
        rank: number of this process. Process 0 writes files and tells of steps.
        size: number of processes.
    """

    rank = 0
    size = 1

    def wrapped(self, loss: nn.Module) -> nn.Module:
        """A module for the loss, the networks in it included, whose gradients are those of all processes together."""
        return loss

    def parts(self, some: Tensor, at_once: int) -> list[tuple[Tensor, float]]:
        """The forward passes of this process in a step, with the weight of each part's mean loss.

        Args:
            some: numbers of the step's examples, `[n]`.
            at_once: the largest number of examples in a pass.
        """
        return [(part, len(part) / len(some)) for part in torch.split(some, at_once)]

    def summed(self, value: Tensor) -> Tensor:
        """The sum over processes."""
        return value

    def agreed(self, *values: float) -> list[float]:
        """The values of process 0."""
        return list(values)

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor of the network, or of the optimizer's state, on the CPU. All processes call this together."""
        return tensor.detach().cpu()

    def put(self, whole: Tensor, into: Tensor) -> None:
        """Copy a whole tensor into one of the network."""
        into.copy_(whole)

    def as_state(self, whole: Tensor, weight: Tensor) -> Tensor:
        """A tensor of an optimizer's state as it lies beside a weight. Counts of steps stay on the CPU."""
        return whole.to(weight.device) if whole.dim() else whole

    def synchronised(self, loss: Any, last: bool) -> Any:
        """A context for the passes of a part. Gradients are exchanged with the last one of a step."""
        return nullcontext()


ALONE = Team()
"""One process by itself."""
