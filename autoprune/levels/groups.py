"""Groups: keeps the most important groups of a unit and removes the others.

Consumers are reconstructed on the groups kept, if the criterion reconstructs. If a BatchNorm follows the consumer, its
mean and variance are recomputed in closed form.

Shapes: O outputs, D inputs of the consumer, K kept inputs.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autoprune.level import Level
from autoprune.levels.form import Building, LiveForm
from autoprune.unit import kept_groups

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.ports.offer import Offer


class Groups(LiveForm):
    """So many groups are kept."""

    refits = True

    def levels(self, of: "Offer") -> Sequence[Level]:
        """The configured fractions of the groups. A unit without a shortcut around it is never dropped."""
        width = of.width.width
        levels = kept_groups(width.groups, of.fractions, of.round_to, width.bundles.size)
        return levels if width.droppable else tuple(level for level in levels if level.kept)

    def size(self, level: Level, groups: int) -> float:
        """The number of groups, exactly."""
        return level.kept

    def short(self, level: Level) -> str:
        """The number of groups."""
        return f"{level.kept:,}"

    def build(self, level: Level, of: Building) -> "Mapping[str, Tensor]":
        """The reconstructed consumer and its norm; nothing where no group or every group is kept."""
        from autoprune.cutting import reading

        if not 0 < level.kept < of.unit.groups or (not of.reconstructs and of.mean is None):
            return {}
        tensors = {}
        weight_OD = of.width.consumer_weight
        kept_K = of.inputs[: level.kept * of.size]
        new_OK = weight_OD[:, kept_K]
        if of.reconstructs:
            new_OK = of.reconstruction().on(kept_K).to(of.dtype).to(weight_OD.dtype)
            tensors["level"] = reading.laid_out(of.width, new_OK).cpu().contiguous()
        if of.mean is not None:
            tensors["norm"] = normalised(of, kept_K, new_OK).cpu()
        return tensors

    def fits(self, level: Level, what: str, tensor: "Tensor") -> bool:
        """Only levels that keep something have tensors."""
        return level.kept > 0 and super().fits(level, what, tensor)


def normalised(of: Building, kept_K: "Tensor", new_OK: "Tensor") -> "Tensor":
    """BatchNorm's mean and variance behind a consumer with these inputs alone, `[2, O]`, in closed form.

    From the dense network's inputs to the block, as the reconstruction is. What training left is shifted and scaled by
    what changes on the calibration images, so that a few of them do.

    Args:
        of: what the level is built from; its width has a norm.
        kept_K: numbers of the consumer's inputs that stay.
        new_OK: the consumer's weights on them.
    """
    import torch

    from autoprune.cutting import reading

    known = reading.batchnorm_statistics(of.width)
    assert known is not None
    assert of.mean is not None
    mean_D, h_DD = of.mean, of.moments
    mean_O, variance_O = (statistic.double() for statistic in known)
    dense_OD, new_OK = of.width.consumer_weight.double(), new_OK.double()
    before_O, after_O = dense_OD @ mean_D, new_OK @ mean_D[kept_K]
    spread_O = (dense_OD @ h_DD * dense_OD).sum(1) - before_O.square()
    left_O = (new_OK @ h_DD[kept_K][:, kept_K] * new_OK).sum(1) - after_O.square()
    ratio_O = (left_O.clamp_min(0) / spread_O.clamp_min(1e-12)).where(spread_O > 0, 1.0)
    return torch.stack([mean_O + after_O - before_O, variance_O * ratio_O]).float()
