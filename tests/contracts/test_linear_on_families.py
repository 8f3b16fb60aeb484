"""The form `linear` on every family: what is fitted is what stands there, and costs are a recount."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.calibration.sub_blocks import SubBlock, collect_sub_blocks, last_outputs
from autoprune.cutting import replacing
from autoprune.level import form_of, group_levels
from autoprune.levels.linear import linear_level
from autoprune.networks.blocks import BlockView
from tests import families, image_families
from tests.contracts.test_families import view_of as text_view
from tests.contracts.test_image_families import close

IMAGES = torch.arange(8).view(4, 2)
WITHOUT = {name for name in image_families.names() if name.startswith(("resnet", "mobilenet"))} | {
    *image_families.PLAIN
}
"""Networks whose blocks have no sub-blocks that write to a stream of their own."""


class Replay(nn.Module):
    """Gives what a sub-block gave."""

    def __init__(self, added: Tensor, attention: bool) -> None:
        super().__init__()
        self._added, self._attention = added, attention

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return (self._added, None) if self._attention else self._added


def view_and_sequences(name: str) -> tuple[BlockView, Tensor]:
    if name in image_families.names():
        return image_families.view_of(name), IMAGES
    return text_view(name), families.random_tokens(4, 13)


@pytest.mark.parametrize("name", sorted({*families.names(), *image_families.names()}))
def test_what_a_sub_block_adds_is_what_a_map_is_fitted_to(name: str) -> None:
    view, sequences = view_and_sequences(name)
    hosts = [width for width in view.widths[0] if replacing.host_of(width.width) is not None]
    assert bool(hosts) == (name not in WITHOUT)
    hidden = view.embed(sequences)
    dense = view.run(0, hidden)
    with last_outputs(hosts) as outputs:
        view.run(0, hidden)
    for width, added in zip(hosts, outputs, strict=True):
        host = replacing.host_of(width.width)
        assert host is not None
        width.keep(0)
        attention = width.width.on_drop[host] == "zero-attention"
        width.dropping.replace(host, Replay(added, attention))
        assert close(view.run(0, hidden), dense)
        width.bare()
        width.restore()
        assert torch.equal(view.run(0, hidden), dense)


@pytest.mark.parametrize("name", sorted({*families.names(), *image_families.names()} - WITHOUT))
def test_a_map_is_as_large_and_as_good_as_it_says(name: str) -> None:
    view, sequences = view_and_sequences(name)
    names = [f"0.{width.width.kind}" for width in view.widths[0]]
    named = next(iter(collect_sub_blocks(view, sequences, 1, names)))
    hidden = view.embed(sequences)
    for width in view.widths[0]:
        sub_block = SubBlock.found(width.width.kind, named)
        unit = width.unit(0, group_levels(width.width.groups, [width.width.groups]))
        size, lost = len(width.consumer_weight), []
        for kind, rank in (("full", None), ("rank", 2), ("constant", 0)):
            tensors = sub_block.map(rank)
            lost.append(sub_block.lost(tensors))
            width.keep(0)
            replacing.replace(width, {name: tensor.float() for name, tensor in tensors.items()})
            module = width.dropping.replacement
            assert module is not None
            assert torch.isfinite(view.run(0, hidden)).all()
            level = linear_level(kind, size, unit.params(unit.groups), rank or 0)
            count = sum(parameter.numel() for parameter in module.parameters())
            assert form_of(level).params(unit, level) == count
            width.bare()
        assert lost == sorted(lost)
        assert lost[-1] <= 1 + 1e-6
        width.restore()
