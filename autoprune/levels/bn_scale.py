"""BatchNorm's scale: a channel's importance is |gamma| (network slimming, Liu et al. 2017, sec. 3), reconstructed.

gamma is the scale of the last BatchNorm that writes the width. It determines the spread of the channel's values. The
paper trains with a penalty on the scales and fine-tunes afterwards; here the network is used as it was trained. Weights
are reconstructed as for `obs`. Only networks whose widths are written by BatchNorm have these scales.
"""

import torch
from torch import Tensor

from autoprune.ports.criterion import Criterion


class BatchNormScale(Criterion):
    """Order by the absolute scales of BatchNorm."""

    reconstructs = True
    needs = ("scales_C",)

    def order(self, weight_OD: Tensor, moments_DD: Tensor, groups: int, scales_C: Tensor) -> Tensor:
        """Groups by the sum of their channels' |gamma|, largest first, `[G]`."""
        score_G = scales_C.double().abs().view(groups, -1).sum(1)
        return torch.argsort(score_G, descending=True, stable=True)
