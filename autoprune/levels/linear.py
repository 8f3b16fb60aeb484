"""Linear: an attention or an MLP is dropped, and a constant or a linear map stands in its place.

The constant is the mean of what the sub-block added to the residual stream (MoNE, Zhang et al. 2025; the bias
compensation of FLAP, An et al. 2024). The map is the least-squares map from what the sub-block read to what it
added (ReplaceMe, Shopkhoev et al. 2025), of full or of low rank. It is made of the moments in
calibration/sub_blocks.py. Where both units of a block are at such a level, the whole block
is replaced.

A level's options are `map` (constant, full or rank), `hidden` (D, the size of the stream) and, of low rank, `rank` (R).
It stores D, D^2 + D or 2 D R + D numbers.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autoprune.errors import UserError
from autoprune.level import Level, Width
from autoprune.levels.form import Building, LiveForm

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.cutting.live import LevelWeights, LiveWidth
    from autoprune.ports.offer import Offer
    from autoprune.unit import Unit

LINEAR = "linear"
CONSTANT, FULL, RANK = "constant", "full", "rank"
DEFAULT = f"{CONSTANT}/{RANK}/{FULL}"
RANK_SHARE = 8
"""The rank of a map is by default the size of the stream over this."""


class Linear(LiveForm):
    """A constant or a linear map in the place of a dropped sub-block."""

    refits = True
    reads_sub_blocks = True

    # -- which levels there are --------------------------------------------------------------------------------

    def check_argument(self, argument: str) -> None:
        """It is kinds of maps with slashes between them: `constant`, `full`, `rank`, or a rank as a number."""
        for part in argument.split("/") if argument else ():
            if part not in (CONSTANT, FULL, RANK) and not (part.isdecimal() and int(part)):
                raise UserError(
                    f"the form '{LINEAR}' has no map '{part}': write {LINEAR}:{CONSTANT}, {LINEAR}:{FULL}, "
                    f"{LINEAR}:{RANK} or a rank, as {LINEAR}:16, and slashes between several."
                )

    def levels(self, of: "Offer") -> Sequence[Level]:
        """A level for each map that stores less than the unit; none for a unit that is no sub-block of its own.

        Raises:
            UserError: no unit of the network is such a sub-block.
        """
        from autoprune.cutting.replacing import host_of

        _check_network(of)
        if host_of(of.width.width) is None:
            return ()
        hidden, whole = int(of.width.consumer_weight.shape[0]), of.unit.params(of.unit.groups)
        found = []
        for part in dict.fromkeys((of.argument or DEFAULT).split("/")):
            rank = max(1, hidden // RANK_SHARE) if part == RANK else int(part) if part.isdecimal() else 0
            level = linear_level(RANK if rank else part, hidden, whole, rank)
            if level.density < 1 and 2 * rank < hidden:
                found.append(level)
        return found

    # -- words and costs ---------------------------------------------------------------------------------------

    def drops(self, level: Level) -> bool:
        """Something is run in the unit's place."""
        return False

    def short(self, level: Level) -> str:
        """The kind of map."""
        kind = str(level.option("map"))
        return f"{RANK} {level.option('rank')}" if kind == RANK else "constant" if kind == CONSTANT else "linear"

    def told(self, level: Level, groups: int, kind: str) -> str:
        """Behind "at"."""
        maps = {CONSTANT: "a constant", FULL: "a linear map"}
        kind_of_map = str(level.option("map"))
        return f"{maps.get(kind_of_map) or f'a linear map of rank {level.option(RANK)}'} in its place"

    def params(self, unit: "Unit", level: Level) -> float:
        """What the map stores, with its constant."""
        return self.macs(unit, level, 0) + _hidden(level)

    def nonzeros(self, unit: "Unit", level: Level) -> float:
        """All of it."""
        return self.params(unit, level)

    def nbytes(self, unit: "Unit", level: Level, itemsize: int) -> float:
        """Of what is stored, in the dense dtype."""
        return itemsize * self.params(unit, level)

    def macs(self, unit: "Unit", level: Level, context: int) -> float:
        """Products with the map's matrices."""
        hidden, kind = _hidden(level), level.option("map")
        if kind == CONSTANT:
            return 0
        return hidden**2 if kind == FULL else 2 * hidden * int(level.option("rank"))

    def kernels(self, unit: "Unit", level: Level) -> int:
        """One for each matrix of the map; a constant is added by one."""
        return 2 if level.option("map") == RANK else 1

    # -- tensors -----------------------------------------------------------------------------------------------

    def shape(self, level: Level, width: Width) -> bool:
        """A map of zeros in the place of the sub-block."""
        from autoprune.cutting import replacing
        from autoprune.cutting.live import LiveWidth

        assert isinstance(width, LiveWidth)
        width.keep(0)
        tensors = replacing.empty(_hidden(level), _rank(level), width.consumer_weight)
        replacing.replace(width, tensors)
        return True

    def build(self, level: Level, of: Building) -> "Mapping[str, Tensor]":
        """`bias` `[D]`; of a map `up` `[D, D]`, or `up` `[D, R]` and `down` `[R, D]`, in the checkpoint's precision.

        `lost` `[1]` is the share of what the sub-block adds that is missed.
        """
        import torch

        from autoprune.calibration.sub_blocks import SubBlock

        weight_OD = of.width.consumer_weight
        compute = weight_OD.dtype
        if LINEAR not in of.memo:
            of.memo[LINEAR] = SubBlock.found(of.unit.kind, of.read, weight_OD.device)
        sub_block: SubBlock = of.memo[LINEAR]
        found = {name: tensor.to(of.dtype) for name, tensor in sub_block.map(_rank(level)).items()}
        lost = sub_block.lost({name: tensor.double() for name, tensor in found.items()})
        tensors = {name: tensor.to(compute).cpu().contiguous() for name, tensor in found.items()}
        return tensors | {"lost": torch.tensor([lost])}

    def lost(self, level: Level, own: "Mapping[str, Tensor]") -> float:
        """What the map gives back of the outputs, which without it are all lost."""
        return float(own["lost"]) - 1

    def fits(self, level: Level, what: str, tensor: "Tensor") -> bool:
        """Whether the shape is that of the kind of map."""
        from autoprune.cutting import replacing

        wanted = replacing.shapes(_hidden(level), _rank(level)) | {"lost": (1,)}
        return tensor.is_floating_point() and tensor.shape == wanted.get(what)

    def place(self, level: Level, width: "LiveWidth", weights: "LevelWeights", own: "Mapping[str, Tensor]") -> None:
        """Drop the sub-block, and put the map where its output is added."""
        from autoprune.cutting import replacing

        width.keep(0)
        replacing.replace(width, own)

    def lift(self, level: Level, width: "LiveWidth") -> None:
        """Take the map off again."""
        width.bare()


def linear_level(kind: str, hidden: int, whole: int, rank: int = 0) -> Level:
    """The level of a kind of map.

    Args:
        kind: of the map.
        hidden: size of the residual stream.
        whole: parameters of the dense unit.
        rank: of a map of low rank.
    """
    options: tuple[tuple[str, int | str], ...] = (("map", kind), ("hidden", hidden))
    matrices = {CONSTANT: 0, FULL: hidden**2, RANK: 2 * hidden * rank}[kind]
    return Level(0, min(1.0, (matrices + hidden) / whole), LINEAR, options + ((("rank", rank),) if rank else ()))


def _hidden(level: Level) -> int:
    return int(level.option("hidden"))


def _rank(level: Level) -> int | None:
    """Of the map: None where it is full, 0 of a constant."""
    kind = level.option("map")
    return None if kind == FULL else int(level.option("rank")) if kind == RANK else 0


def _check_network(of: "Offer") -> None:
    """Raise a UserError where no unit of the network can have such a level."""
    from autoprune.cutting.replacing import host_of

    if not any(host_of(width.width) for row in of.view.widths for width in row):
        raise UserError(
            f"the form '{LINEAR}' replaces attentions and MLPs that are added to a residual stream, and the family "
            f"'{of.view.family.name}' has none: leave {LINEAR} out of forms={of.config.forms}."
        )
