"""Bits: the weights of a unit in 8, 6, 5, 4, 3 or 2 bits, group by group of a row; with fewer groups of the unit, too.

All matrices of a unit have the same number of bits. Each is rounded with compensation of the errors (GPTQ) by the
moments of what it reads, or to the nearest where those are not known or that is better. The store keeps packed codes,
scales and zero points (quantising/). Weights are multiplied out when a level is put in place. Latest ones are kept.

If `groups` is among the forms of a search, too, some numbers of bits are offered with fewer groups (`COMBINED`). The
matrices that write a unit are rounded once: fewer groups are fewer rows of the same.

Shapes: O outputs, D inputs of a matrix, K kept inputs, N groups of columns.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoprune.errors import UserError
from autoprune.level import GROUPS, Level
from autoprune.levels.form import Building, LiveForm
from autoprune.levels.quantising.setting import Setting, grid_of, read
from autoprune.levels.quantising.storage import stored_bytes
from autoprune.unit import kept_groups

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.cutting.live import LevelWeights, LiveWidth
    from autoprune.ports.offer import Offer
    from autoprune.unit import Unit

COMBINED = (4, 3)
"""Bits that are offered with fewer groups. Fewer groups in more bits lose more than all groups in fewer."""
REFERENCE = 2
"""Bytes of a dense weight, of which densities are shares, and of a scale."""
CODES, SCALES, ZEROS, LOST = "codes", "scales", "zeros", "lost"


class Bits(LiveForm):
    """So many bits a weight."""

    changes_producers = True
    ends = True
    stays = True

    # -- which levels there are ------------------------------------------------------------------------------------

    def check_argument(self, argument: str) -> None:
        """Numbers of bits and settings of the grid (quantising/setting.py)."""
        read(argument)

    def levels(self, of: "Offer") -> Sequence[Level]:
        """All groups at every number of bits, and the configured fractions at some, if groups may go."""
        from autoprune.forms import chosen_forms

        setting, unit = read(of.argument), of.unit
        if not unit.shapes:
            raise UserError(
                f"the form bits cannot be had for the unit {unit.name}: its weights are not plain matrices (experts, "
                "or two widths that are cut as one). Leave bits out of --forms."
            )
        combined: Sequence[Level] = ()
        if any(one.name == GROUPS for one in chosen_forms(of.config.forms)):
            combined = kept_groups(unit.groups, of.fractions, of.round_to, unit.bundle)
        some = [bits for bits in setting.bits if bits in COMBINED] or setting.bits[-1:]
        found = [self.level(unit, unit.groups, bits, setting) for bits in setting.bits]
        fewer = [level.kept for level in combined if 0 < level.kept < unit.groups]
        return found + [self.level(unit, kept, bits, setting) for bits in some for kept in fewer]

    def level(self, unit: "Unit", kept: int, bits: int, setting: Setting) -> Level:
        """The level of a unit that keeps so many groups in so many bits."""
        level = Level(kept, 1.0, "bits", setting.options(bits))
        density = self.nbytes(unit, level, REFERENCE) / _dense_bytes(unit)
        return Level(kept, min(1.0, density), "bits", level.options)

    # -- what they cost --------------------------------------------------------------------------------------------

    def nbytes(self, unit: "Unit", level: Level, itemsize: int) -> float:
        """Packed matrices with their scales; other weights as they are."""
        grid, sizes = grid_of(level), unit.sizes(level.kept)
        packed = sum(stored_bytes(rows, columns, grid, itemsize) for rows, columns in sizes)
        others = unit.params(level.kept) + unit.fixed_params - sum(rows * columns for rows, columns in sizes)
        return packed + others * itemsize

    def notice(self, metrics: Sequence[str]) -> str | None:
        """Stock kernels multiply weights out first."""
        timed = [metric for metric in metrics if metric in ("latency", "roofline")]
        if not timed:
            return None
        return (
            f"Levels of the form bits count with the {timed[0]} of their groups in dense weights: kernels for few bits "
            "are not measured."
        )

    # -- how they are made -----------------------------------------------------------------------------------------

    def build(self, level: Level, of: Building) -> "Mapping[str, Tensor]":
        """Codes, scales and zero points of each matrix: of producers with the first level of these bits, whole."""
        from autoprune.levels.quantising.unit import rounded_consumer, rounded_producers

        tensors: dict[str, Tensor] = {}
        if self.borrows(level, of.unit.levels) is None:
            tensors |= rounded_producers(level, of, _alike(level, of.unit.levels))
        same = [other for other in _alike(level, of.unit.levels) if other.kept == level.kept]
        return tensors | rounded_consumer(level, of, same)

    def borrows(self, level: Level, levels: Sequence[Level]) -> int | None:
        """The first level of the same bits has the matrices that write the unit."""
        first = next(n for n, other in enumerate(levels) if other.form == "bits" and other.options == level.options)
        return None if levels[first] == level else first

    def lost(self, level: Level, own: "Mapping[str, Tensor]") -> float:
        """As it was measured when the producers were rounded."""
        return float(own[LOST])

    def unpacked(self, level: Level, of: "LiveWidth", own: "Mapping[str, Tensor]") -> "Tensor":
        """The consumer's weight, multiplied out."""
        from autoprune.levels.quantising.unit import consumer_of

        return consumer_of(level, of, own)

    def fits(self, level: Level, what: str, tensor: "Tensor") -> bool:
        """Codes are words, zero points bytes, scales floats."""
        import torch

        kinds = {CODES: torch.int32, ZEROS: torch.uint8}
        name = what.rstrip("0123456789")
        if what == "norm":
            return super().fits(level, what, tensor)
        if name in kinds:
            return tensor.dtype == kinds[name] and tensor.dim() == 2
        return name in (SCALES, LOST) and tensor.is_floating_point()

    # -- how they are put in place ---------------------------------------------------------------------------------

    def place(self, level: Level, width: "LiveWidth", weights: "LevelWeights", own: "Mapping[str, Any]") -> None:
        """The matrices multiplied out, cut to the groups kept."""
        from autoprune.levels.quantising.unit import level_weights

        width.keep(level.kept, level_weights(level, width, weights, own))


def _dense_bytes(unit: "Unit") -> int:
    return REFERENCE * (unit.params(unit.groups) + unit.fixed_params)


def _alike(level: Level, levels: Sequence[Level]) -> list[Level]:
    """Levels on such grids in any number of bits: they are rounded together."""
    return [other for other in levels if other.form == "bits" and other.options[1:] == level.options[1:]]
