"""A form of levels that is not built in: some groups are kept, and the consumer's weights are scaled by a share."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autoprune.cutting import reading
from autoprune.cutting.live import LevelWeights, LiveWidth
from autoprune.level import Level
from autoprune.levels.form import Building, LiveForm
from autoprune.ports.offer import Offer
from autoprune.space import Unit

HALF = 0.5


def scaled(kept: int, groups: int, share: float) -> Level:
    """So many groups, scaled: what is left of them counts by the share."""
    return Level(kept, share * kept / groups, "scaled", (("share", share),))


def mixed_levels(groups: int, bundle: int) -> tuple[Level, ...]:
    """Levels of both forms, and of both at once, the dense first."""
    half = bundle * max(1, round(groups / bundle / 2))
    return (
        Level.of_groups(groups, groups),
        scaled(groups, groups, 0.75),
        Level.of_groups(half, groups),
        scaled(half, groups, HALF),
        Level.of_groups(0, groups),
    )


class Scaled(LiveForm):
    """Consumers times a share; on the device a share of its own is kept, and is put where the width can be asked."""

    def levels(self, of: Offer) -> Sequence[Level]:
        """Levels of both forms."""
        return mixed_levels(of.unit.groups, of.unit.bundle)

    def params(self, unit: Unit, level: Level) -> float:
        """What is kept, by the share."""
        return float(level.option("share")) * unit.params(level.kept)

    def macs(self, unit: Unit, level: Level, context: int) -> float:
        """Likewise."""
        return float(level.option("share")) * unit.macs(level.kept, context)

    def build(self, level: Level, of: Building) -> Mapping[str, Tensor]:
        """The consumer on the kept groups, scaled, and the share as a tensor of the form's own."""
        share = float(level.option("share"))
        weight_OK = of.width.consumer_weight[:, of.inputs[: level.kept * of.size]] * share
        return {"level": reading.laid_out(of.width, weight_OK).contiguous(), "share": torch.tensor([share])}

    def fits(self, level: Level, what: str, tensor: Tensor) -> bool:
        """Its own tensor is one number."""
        return tensor.shape == (1,) if what == "share" else super().fits(level, what, tensor)

    def place(self, level: Level, width: LiveWidth, weights: LevelWeights, own: Mapping[str, Any]) -> None:
        """As the weights say, and the share where `lift` takes it off."""
        super().place(level, width, weights, own)
        vars(width)["share"] = float(own["share"])

    def lift(self, level: Level, width: LiveWidth) -> None:
        """Takes off the share."""
        del vars(width)["share"]
