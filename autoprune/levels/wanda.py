"""Wanda: weights times the norm of their inputs (Sun et al. 2024, eq. 1), summed over a group."""

import torch
from torch import Tensor

from autoprune.ports.criterion import Criterion


class Wanda(Criterion):
    """Order by |W| * ||x||; consumers keep their dense weights."""

    reconstructs = False

    def order(self, weight_OD: Tensor, moments_DD: Tensor, groups: int) -> Tensor:
        """Groups by the sum of |w_od| * sqrt(H_dd), largest first, `[G]`."""
        norm_D = moments_DD.diagonal().double().clamp_min(0).sqrt()
        score_G = (weight_OD.double().abs().sum(0) * norm_D).view(groups, -1).sum(1)
        return torch.argsort(score_G, descending=True, stable=True)
