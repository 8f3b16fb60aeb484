"""The port of distillations: how far a network is from the dense network that teaches it."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Distillation(ABC):
    """A distance from the dense network, which training makes small. It is 0 for the dense network itself.

    Attributes:
        of_blocks: whether it compares outputs of blocks, and not logits.
    """

    of_blocks: bool = False

    @abstractmethod
    def distance(self, own_NK: "Tensor", dense_NK: "Tensor") -> "Tensor":
        """The mean over rows, a scalar with derivatives.

        Args:
            own_NK: of the trained network, float32. Each row is one prediction: log-probabilities at the temperature of
                the training. With `of_blocks` it is called once for each block, and each row is the output of the block
                for one token or image.
            dense_NK: the same of the dense network, without derivatives.
        """
