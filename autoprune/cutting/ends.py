"""The ends of a network, embeddings and head, as widths of a single group: nothing of them leaves, bits do.

A matrix that is both, as in networks with tied embeddings, is one end. Units of ends come behind those of the blocks,
and their block is the number of blocks.
"""

from dataclasses import replace

from torch import nn

from autoprune.cutting.live import LiveWidth
from autoprune.cutting.widths import Slice, Width
from autoprune.level import group_levels
from autoprune.unit import Unit

EMBEDDING, HEAD = "embedding", "head"


def ends_of(model: nn.Module, embedding: nn.Module | None, head: nn.Module | None) -> list[LiveWidth]:
    """The ends of a network.

    Args:
        model: the network.
        embedding: its module of input embeddings; None where it has none.
        head: the matrix that gives the logits; None where that is not known.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    found, seen = [], set()
    for kind, module in ((EMBEDDING, embedding), (HEAD, head)):
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.dim() != 2 or id(weight) in seen or id(module) not in paths:
            continue
        seen.add(id(weight))
        consumer = Slice(paths[id(module)], weight.shape[1], 1)
        found.append(LiveWidth(model, Width(kind, 1, (), consumer, on_drop={}, droppable=False)))
    return found


def unit_of_end(end: LiveWidth, block: int) -> Unit:
    """The unit of an end. Its weights count for no metric that counts what can be removed, as params and macs."""
    unit = end.unit(block, group_levels(1, [1]))
    return replace(unit, group_params=0, group_macs=0, fixed_params=unit.params(1) + unit.fixed_params)
