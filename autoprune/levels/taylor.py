"""Taylor: the squared derivative of the loss with respect to a group's gate (Molchanov et al. 2019), reconstructed.

To first order, removing a group changes the loss of an example by minus the derivative with respect to a gate that
multiplies the group. The mean of its square over examples is the group's importance (the gate form in section 3 of the
paper). Unlike criteria on a consumer's output, this includes the effect of later layers. It ignores that groups can
replace each other. Weights are reconstructed as for `obs`.
"""

import torch
from torch import Tensor

from autoprune.ports.criterion import Criterion


class Taylor(Criterion):
    """Order by the mean square of gates' derivatives over examples."""

    reconstructs = True
    needs = ("gradients_NG",)

    def order(self, weight_OD: Tensor, moments_DD: Tensor, groups: int, gradients_NG: Tensor) -> Tensor:
        """Groups by the mean of (dL/dg)^2 over the N examples, largest first, `[G]`."""
        score_G = gradients_NG.double().square().mean(0)
        return torch.argsort(score_G, descending=True, stable=True)
