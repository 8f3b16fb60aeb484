"""Kullback-Leibler divergence of the network from the dense one, KL(dense || own) (Hinton et al. 2015).

It punishes a network that misses what the dense network holds likely.
"""

from torch import Tensor
from torch.nn import functional

from autoprune.ports.distillation import Distillation


class ForwardKL(Distillation):
    """Nats per prediction."""

    def distance(self, own_NK: Tensor, dense_NK: Tensor) -> Tensor:
        """The sum over classes of p_dense * (log p_dense - log p_own)."""
        return functional.kl_div(own_NK, dense_NK, reduction="batchmean", log_target=True)
