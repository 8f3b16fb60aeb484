"""Which sub-blocks the forms of a search's levels are built from, and their moments."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from autoprune.calibration.sub_blocks import SubBlock, collect_sub_blocks
from autoprune.levels.form import live_form
from autoprune.networks.blocks import BlockView
from autoprune.space import Unit


def sub_blocks_of(
    units: Sequence[Unit], view: BlockView, tokens_NT: Tensor, batch: int
) -> Iterator[list[SubBlock | None]] | None:
    """Per block and width, what its sub-block reads and adds, where a level of it asks; None where no level does.

    Args:
        units: with their levels.
        view: the dense network.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass at most.
    """
    wanted = [any(live_form(level).reads_sub_blocks for level in unit.levels) for unit in units]
    return collect_sub_blocks(view, tokens_NT, batch, wanted) if any(wanted) else None
