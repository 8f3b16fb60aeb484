"""The port of a criterion: the order in which groups leave, and whether the consumer is reconstructed.

Shapes: O outputs, D inputs of the consumer (`groups * size`), G groups.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from autoprune import usercode
from autoprune.ports.adapting import part_class

if TYPE_CHECKING:
    from torch import Tensor


class Criterion(ABC):
    """Orders the groups of a width."""

    reconstructs: ClassVar[bool] = False
    """Whether the consumer's weights are reconstructed on the inputs that stay."""

    needs: ClassVar[Sequence[str]] = ()
    """Names of further arguments of `order`, besides weights and moments (autoprune/levels/evidence.py)."""

    compares: ClassVar[Literal["row", "matrix", "network"]] = "row"
    """Which single weights compete for their places, in forms that remove single weights: those of one output, of one
    matrix, or of the whole network. A criterion that reconstructs has an order of its own (levels/weights.py)."""

    @abstractmethod
    def order(self, weight_OD: "Tensor", moments_DD: "Tensor", groups: int, *args: Any, **evidence: Any) -> "Tensor":
        """Groups from the most to the least important, `[G]` int64.

        With `needs = ("gradients_NG",)` the method is `order(weight_OD, moments_DD, groups, gradients_NG)`.

        Args:
            weight_OD: of the consumer.
            moments_DD: second moments of its inputs.
            groups: pieces of the width, each of neighbouring inputs.
            args: none.
            evidence: what is in `needs`, by name.
        """

    def importance(self, weight_OD: "Tensor", moments_DD: "Tensor") -> "Tensor":
        """Importance of every single weight, `[O, D]`: by default |w| times the norm of its input (Wanda).

        It is asked for forms that remove single weights, unless the criterion reconstructs: then weights leave in the
        order of SparseGPT, and the others are corrected.

        Args:
            weight_OD: of any matrix of a unit.
            moments_DD: second moments of its inputs.
        """
        return weight_OD.abs() * moments_DD.diagonal().to(weight_OD).clamp_min(0).sqrt()


def load_criterion(name: str) -> Criterion:
    """The criterion called `name`. It may be a user's class with a method `order`.

    Raises:
        UserError: it does not exist, cannot be imported, or has no such method.
    """
    found: Criterion = usercode.call("criterion", part_class(Criterion, "criteria", name))
    return found
