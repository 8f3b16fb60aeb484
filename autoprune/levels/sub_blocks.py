"""Which sub-blocks the forms of a search's levels are built from, and their moments."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

from torch import Tensor

from autoprune.calibration.sub_blocks import collect_sub_blocks
from autoprune.levels.form import live_form
from autoprune.networks.blocks import BlockView
from autoprune.space import Unit


def with_sub_blocks(
    inputs: Iterable[Mapping[str, Tensor]] | None,
    units: Sequence[Unit],
    view: BlockView,
    tokens_NT: Tensor,
    batch: int,
) -> Iterable[Mapping[str, Tensor]] | None:
    """What is collected of each block, and what its sub-blocks read and add where a level asks for it.

    Args:
        inputs: what else is collected; None where nothing is.
        units: with their levels.
        view: the dense network.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass at most.
    """
    wanted = {unit.name for unit in units if any(live_form(level).reads_sub_blocks for level in unit.levels)}
    if not wanted:
        return inputs
    found = collect_sub_blocks(view, tokens_NT, batch, wanted)
    return ({**other, **own} for other, own in zip(inputs if inputs is not None else repeat({}), found, strict=False))
