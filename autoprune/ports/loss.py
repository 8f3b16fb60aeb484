"""The port of a loss: the distance of a pruned network's predictions from the dense network's or from the labels.

Shapes: B sequences, T tokens (or images), V vocabulary (or classes), D hidden.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from autoprune import usercode
from autoprune.ports.adapting import part_class

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.calibration.losses import Target
    from autoprune.networks.head import LinearHead


class Loss(ABC):
    """A loss in nats per token, one number for each sequence.

    `prepare` runs once on the dense network and returns a reference. `measure` compares a candidate with it.
    """

    zero_at_dense: ClassVar[bool] = False
    """Whether the dense network's own loss is 0, as for a divergence from it. It is then not measured."""

    @abstractmethod
    def prepare(self, logits_BTV: "Tensor", labels_BT: "Tensor") -> "tuple[Tensor, ...]":
        """Compute the reference from the dense network's logits and the labels."""

    @abstractmethod
    def measure(self, logits_BTV: "Tensor", reference: "tuple[Tensor, ...]") -> "Tensor":
        """Mean over tokens for each sequence, `[B]`.

        Args:
            logits_BTV: logits of a candidate.
            reference: the result of `prepare`.
        """

    def target(self, head: "LinearHead", read_TD: "Tensor", labels_T: "Tensor") -> "Target":
        """What is kept of one sequence, where the loss is linear in the logits but for their logarithm of summed
        exponentials: behind a linear head it is then measured without logits, with the same result.

        A loss that is not linear does not define this and is measured from logits.

        Args:
            head: of the network.
            read_TD: what its matrix takes in the dense network.
            labels_T: what it should predict.
        """
        raise NotImplementedError


def load_loss(name: str) -> Loss:
    """The loss called `name`. A class of the user's with the methods `prepare` and `measure` is one, too.

    Raises:
        UserError: there is none, it cannot be imported, or it lacks a method.
    """
    found: Loss = usercode.call("loss", part_class(Loss, "losses", name))
    return found
