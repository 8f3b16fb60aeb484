"""Counts parameters, multiply-accumulates and cache of a width, as a `Unit` of the search space."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from autoprune.cutting.matrices import shapes_of
from autoprune.level import Level
from autoprune.space import Unit

if TYPE_CHECKING:
    from autoprune.cutting.live import LiveWidth


def unit_of(live: "LiveWidth", block: int, levels: tuple[Level, ...]) -> Unit:
    """The unit of a width.

    Args:
        live: the width, with all groups.
        block: the index of its block.
        levels: its levels.
    """
    width = live.width
    size, shared, square = _costs(live, {})
    macs, shared_macs, square_macs = _costs(live, live.positions, matrices=True)
    inside = {id(p): p.numel() for module in live.dropping.modules.values() for p in module.parameters()}
    inside |= {id(p): p.numel() for module in live.dense.modules.values() for p in module.parameters(recurse=False)}
    groups, tokens = width.groups, live.positions.get(width.consumer.module)
    unit = Unit(
        name=f"{block}.{width.kind}", kind=width.kind, block=block, groups=groups, levels=levels,
        group_params=size,
        # an image is its own context, of a length that is known
        group_macs=macs + (width.context_macs * tokens**2 if tokens else 0),
        context_macs=0 if tokens else width.context_macs, group_cache=width.cache,
        matrices=1 + sum(len(weights_of(link)) - 1 for link in live.links),
        square_params=square, square_macs=square_macs,
        bundle=width.bundles.size, bundle_params=shared, bundle_macs=shared_macs, shapes=shapes_of(live),
    )  # fmt: skip
    return replace(unit, fixed_params=sum(inside.values()) - unit.params(groups))


def weights_of(live: "LiveWidth") -> list[Tensor]:
    """The dense weight matrices that follow a width, producers before the consumer."""
    named = [live.dense.tensors[cut.key] for cut in live.cuts if cut.is_weight]
    return [weight for weight in named if weight.dim() > 1]


def _costs(live: "LiveWidth", times: Mapping[str, int], matrices: bool = False) -> tuple[int, int, int]:
    """Weights of a group, of a bundle of groups, and of a pair of groups, what two widths share.

    Args:
        times: module path -> how often its weights count; once, where it is missing.
        matrices: count the weights that multiply alone.
    """
    groups, single, bundled, pairs = live.width.groups, 0, 0, 0
    cuts = [cut for link in live.links for cut in link.cuts if cut.key[1] in live.dense.modules[cut.key[0]]._parameters]
    keys = [cut.key for cut in cuts]
    for cut in {cut.key: cut for cut in cuts}.values():
        tensor = live.dense.tensors[cut.key]
        if matrices and (tensor.dim() == 1 or not cut.is_weight):
            continue
        numel = tensor.numel() * times.get(cut.key[0], 1)
        if keys.count(cut.key) > 1:
            pairs += numel // groups**2
            continue
        for segment in cut.segments.segments:
            each = segment.size * (numel // tensor.shape[cut.dim])
            bundled += each if segment.shared else 0
            single += 0 if segment.shared else each
    return single, bundled, pairs
