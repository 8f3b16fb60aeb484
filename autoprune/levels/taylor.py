"""Taylor: the squared derivative of the loss with respect to a group's gate (Molchanov et al. 2019), reconstructed.

What removing a group does to the loss of an example is, to first order, minus the derivative with respect to a gate
that multiplies it; its square, in the mean over examples, is the group's importance: the gate form of that paper's
section 3. Unlike what looks at a consumer's output alone, it sees what later layers make of it. It says nothing of how
groups stand in for one another. Weights are reconstructed as for `obs`, on whatever groups the order leaves.
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
