"""Squared error of the outputs of blocks, relative to the dense ones (Muralidharan et al. 2024, "Minitron", sec. 2.3).

Each row is divided by its own dense square. Otherwise the few tokens with very large outputs would be all that counts.
"""

from torch import Tensor

from autoprune.ports.distillation import Distillation

LEAST = 1e-12
"""Of a dense square, so that a row of zeros divides nothing."""


class HiddenMSE(Distillation):
    """A share: 1 is as far from the dense output as nothing is."""

    of_blocks = True

    def distance(self, own_NK: Tensor, dense_NK: Tensor) -> Tensor:
        """The mean of |own - dense|^2 / |dense|^2."""
        error_N, size_N = (own_NK - dense_NK).square().sum(-1), dense_NK.square().sum(-1)
        return (error_N / size_N.clamp(min=LEAST)).mean()
