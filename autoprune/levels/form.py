"""The port of a level's form: how levels are reconstructed, stored, put in place on the live network, and removed.

Modules of forms do not import torch or models at the top, because reports use forms and must start fast.

Shapes: O outputs, D inputs of the consumer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoprune.errors import UserError
from autoprune.level import Form, Level, form_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from autoprune.cutting.live import LevelWeights, LiveWidth
    from autoprune.levels.criterion import Reconstruction
    from autoprune.levels.matrices import UnitBuilding
    from autoprune.space import Unit


@dataclass(frozen=True)
class Building:
    """The data from which a form builds the levels of one width. Inputs and groups are in the dense network's order.

    Args:
        unit: that the width is of.
        width: the live width, dense.
        moments: second moments of the consumer's inputs, `[D, D]`; `[0, 0]` where they are not known.
        mean: their means, `[D]`; None where no BatchNorm reads the consumer.
        inputs: numbers of the consumer's inputs, `[D]`, those of the most important group first.
        reconstructs: whether the criterion gives the consumer new weights.
        reconstruction: makes the least-squares weights on some inputs; it is worked out once for all levels.
        dtype: the checkpoint's, which weights are rounded to.
        read: path of a producer in the block -> second moments of what it reads and of a constant 1, where a form asks
            for them (calibration/inputs.py), and what its sub-blocks read and add (calibration/sub_blocks.py).
        memo: what forms remember for other levels of the width.
    """

    unit: "Unit"
    width: "LiveWidth"
    moments: "Tensor"
    mean: "Tensor | None"
    inputs: "Tensor"
    reconstructs: bool
    reconstruction: "Callable[[], Reconstruction]"
    dtype: "torch.dtype"
    read: "Mapping[str, Tensor]" = field(default_factory=dict)
    memo: "dict[Any, Any]" = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Inputs of the consumer that belong to one group."""
        return len(self.inputs) // self.unit.groups

    @property
    def order(self) -> "Tensor":
        """Numbers of the groups, the most important first, `[G]`."""
        return self.inputs[:: self.size] // self.size


class LiveForm(Form):
    """A form with its half that needs tensors. By default a level is the prefix of its groups with weights of its own.

    Attributes:
        refits: whether consumers of such a level may be solved once more without leaving the form (training/refit.py).
        changes_producers: whether `build` or `build_unit` needs the moments of what producers read (`Building.read`).
        reads_sub_blocks: whether `build` needs what whole sub-blocks read and add (levels/sub_blocks.py).
        whole: whether a level changes more matrices than the consumer, and is built by `build_unit` for the whole unit.
        keeps_zeros: whether weights that are zero at a level stay zero when the network is trained.
        stays: whether the matrices of a level stay as they are when the network is trained.
    """

    refits: bool = False
    changes_producers: bool = False
    reads_sub_blocks: bool = False
    whole: bool = False
    keeps_zeros: bool = False
    stays: bool = False

    def build(self, level: Level, of: Building) -> "Mapping[str, Tensor]":
        """Tensors that the store keeps of a level: `level` is the consumer's weight in the layout of its module, with
        the groups in the store's order, and `norm` is the mean and variance of the BatchNorm that reads the consumer,
        `[2, O]`. Other names are the form's own.
        """
        raise NotImplementedError

    def build_unit(self, levels: Mapping[int, Level], of: "UnitBuilding") -> "Mapping[str, Tensor]":
        """Tensors that the store keeps of all levels of this form that a unit has, if the form is `whole`.

        Names are those of `build` with a dot and the level's number: `level.3`. Weights are in the store's order of
        groups, as `UnitBuilding.matrices` has them. The consumer of a width behind is `behind.level`.

        Args:
            levels: by their numbers in the unit.
            of: the unit, its matrices and the moments of what they read.
        """
        raise NotImplementedError

    def consumer(self, level: Level, stored: "Tensor | None", of: "LiveWidth", inputs_D: "Tensor") -> "Tensor":
        """What the consumer multiplies with at a level, `[O, D]` float64, 0 where an input is gone.

        Args:
            level: the level.
            stored: the tensor `level` of the store; None where it has none.
            of: the live width, dense.
            inputs_D: as `Building.inputs`.
        """
        from autoprune.cutting import reading

        weight_OD = of.consumer_weight.double()
        new_OD = weight_OD.new_zeros(weight_OD.shape)
        inputs_K = inputs_D[: level.kept * (len(inputs_D) // of.width.groups)]
        if len(inputs_K):
            kept_OK = (
                weight_OD[:, inputs_K] if stored is None else reading.matrix(of, stored).double().to(weight_OD.device)
            )
            new_OD[:, inputs_K] = kept_OK
        return new_OD

    def unpacked(self, level: Level, of: "LiveWidth", own: "Mapping[str, Tensor]") -> "Tensor | None":
        """The consumer's weight where it is in tensors of the form's own, in its module's layout. By default None."""
        return None

    def lost(self, level: Level, own: "Mapping[str, Tensor]") -> float:
        """Shares of the outputs of producers that a level loses, squared and added up. By default 0.

        It is below 0 where something else than the consumer gives a part of the outputs back.
        """
        return 0.0

    def borrows(self, level: Level, levels: "Sequence[Level]") -> int | None:
        """The number of a level of the same unit whose own tensors this level uses, too. By default None.

        A tensor that both have is this level's.
        """
        return None

    def fits(self, level: Level, what: str, tensor: "Tensor") -> bool:
        """Whether a tensor that the store has of a level under a name can be of it."""
        if what == "norm":
            return tensor.is_floating_point() and tensor.dim() == 2 and len(tensor) == 2
        return what == "level" and tensor.is_floating_point() and tensor.numel() % max(1, level.kept) == 0

    def place(self, level: Level, width: "LiveWidth", weights: "LevelWeights", own: "Mapping[str, Tensor]") -> None:
        """Put a level in place on the live network, whose groups are in the store's order.

        Args:
            level: the level.
            width: where.
            weights: the tensors `level` and `norm` of the store, of the width and of those behind it.
            own: its tensors of other names.
        """
        width.keep(level.kept, weights)

    def lift(self, level: Level, width: "LiveWidth") -> None:
        """Remove what `place` added to the live network besides weights, before another form is put in place."""


def live_form(level: Level) -> LiveForm:
    """The form of a level, of which networks can be made.

    Raises:
        UserError: there is no such form, or it lacks this half.
    """
    form = form_of(level)
    if not isinstance(form, LiveForm):
        raise UserError(f"the form '{level.form}' must derive from autoprune.levels.form.LiveForm.")
    return form
