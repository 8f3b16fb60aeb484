"""Cosine distance of the outputs of blocks: only their direction is compared, not their length."""

from torch import Tensor
from torch.nn import functional

from autoprune.ports.distillation import Distillation


class HiddenCosine(Distillation):
    """Between 0 and 2."""

    of_blocks = True

    def distance(self, own_NK: Tensor, dense_NK: Tensor) -> Tensor:
        """The mean of 1 - cosine."""
        return 1 - functional.cosine_similarity(own_NK, dense_NK, dim=-1).mean()
