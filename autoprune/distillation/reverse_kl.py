"""Reverse Kullback-Leibler divergence, KL(own || dense) (Gu et al. 2024, "MiniLLM").

It punishes a network that holds likely what the dense network does not. A small network may leave out rare answers.
"""

from torch import Tensor
from torch.nn import functional

from autoprune.ports.distillation import Distillation


class ReverseKL(Distillation):
    """Nats per prediction."""

    def distance(self, own_NK: Tensor, dense_NK: Tensor) -> Tensor:
        """The sum over classes of p_own * (log p_own - log p_dense)."""
        return functional.kl_div(dense_NK, own_NK, reduction="batchmean", log_target=True)
