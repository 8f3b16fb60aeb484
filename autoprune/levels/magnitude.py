"""Magnitude: a group's importance is the norm of its weights in the consumer (Han et al. 2015, on groups)."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from autoprune.ports.criterion import Criterion


class Magnitude(Criterion):
    """Order by weights alone; consumers keep their dense weights."""

    reconstructs = False
    compares: ClassVar[Literal["row", "matrix", "network"]] = "matrix"

    def order(self, weight_OD: Tensor, moments_DD: Tensor, groups: int) -> Tensor:
        """Groups by the sum of their squared weights, largest first, `[G]`."""
        score_G = weight_OD.double().square().sum(0).view(groups, -1).sum(1)
        return torch.argsort(score_G, descending=True, stable=True)

    def importance(self, weight_OD: Tensor, moments_DD: Tensor) -> Tensor:
        """|w|."""
        return weight_OD.abs()
