"""Every family has levels of single weights: the order of groups does not matter, and norms read what they expect."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.calibration.inputs import collect_inputs
from autoprune.calibration.moments import collect
from autoprune.cutting.live import LiveWidth
from autoprune.level import Level, group_levels
from autoprune.levels.matrices import UnitBuilding, norm_behind
from autoprune.levels.sparse import Sparse
from autoprune.levels.tensors import owned, weights_by_level
from autoprune.networks.blocks import BlockView
from autoprune.ports.criterion import load_criterion
from tests import image_families

NUMBERS = torch.arange(4).view(2, 2)
HALF = Level(0, 0.5, "sparse", (("share", 0.5),))


def place_half(view: BlockView, tokens_NT: Tensor, criterion: str, permuted: bool, blocks: Sequence[int] = ()) -> None:
    """Every unit at a level of half of its weights, in a random order of its groups."""
    draw, form = torch.Generator().manual_seed(0), Sparse()
    moments, inputs = list(collect(view, tokens_NT, 1)), list(collect_inputs(view, tokens_NT, 1))
    for block, row in enumerate(view.widths):
        links = iter(moments[block])
        for width in row:
            consumers = [next(links) for _ in width.links]
            orders = [_order(link, draw, permuted) for link in width.links]
            unit = width.unit(block, group_levels(width.width.groups, [width.width.groups]))
            level = Level(unit.groups, 0.5, HALF.form, HALF.options)
            chosen = load_criterion(criterion)
            of = UnitBuilding(unit, width, orders, inputs[block], consumers, chosen, torch.float32)
            tensors: dict[str, Tensor] = dict(form.build_unit({0: level}, of))
            own = owned(tensors, [level])[0]
            weights = weights_by_level(tensors | {"behind." * i + "order": order for i, order in enumerate(orders)}, 1)[
                0
            ]
            width.permute(*orders)
            if not blocks or block in blocks:
                form.place(level, width, weights, own)


def _order(link: LiveWidth, draw: torch.Generator, permuted: bool) -> Tensor:
    groups, bundle = link.width.groups, link.width.bundles.size
    if not permuted:
        return torch.arange(groups)
    bundles = torch.randperm(groups // bundle, generator=draw)
    return (bundles[:, None] * bundle + torch.arange(bundle)).flatten()


@pytest.mark.parametrize("name", image_families.names())
def test_the_order_of_groups_does_not_matter(name: str) -> None:
    views = [image_families.view_of(name), image_families.view_of(name)]
    for view, permuted in zip(views, (False, True), strict=True):
        place_half(view, NUMBERS, "magnitude", permuted)
    one, other = (view(NUMBERS) for view in views)
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))
    dense = image_families.view_of(name)(NUMBERS)
    assert not torch.allclose(one, dense, rtol=1e-3, atol=1e-3 * float(dense.abs().max()))


@pytest.mark.parametrize("name", [name for name in image_families.names() if name.startswith("resnet")])
def test_norms_read_the_mean_and_spread_that_they_expect(name: str) -> None:
    dense, pruned = image_families.view_of(name), image_families.view_of(name)
    place_half(pruned, NUMBERS, "wanda", permuted=False, blocks=[0])
    seen: list[dict[str, Tensor]] = []
    for view in (dense, pruned):
        width = view.widths[0][0]
        outputs: dict[str, Tensor] = {}
        for key in width.matrix_keys[:1]:  # what reads the block's input, which is the dense one
            norm = norm_behind(width, key)
            assert norm is not None
            module: Any = view.blocks[0].get_submodule(norm)
            hook = module.register_forward_pre_hook(lambda _, args, n=norm, o=outputs: o.update({n: args[0]}))
            view(NUMBERS)
            hook.remove()
            x_CN = outputs[norm].transpose(0, 1).flatten(1)
            moved_C = x_CN.mean(1) - module.running_mean
            spread_C = x_CN.var(1, correction=0) / module.running_var
            seen.append({"moved": moved_C, "spread": spread_C})
    for what in ("moved", "spread"):
        torch.testing.assert_close(seen[0][what], seen[1][what], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", image_families.names())
def test_what_is_placed_is_taken_back(name: str) -> None:
    view = image_families.view_of(name)
    before: nn.Module = view.model
    state = {key: tensor.clone() for key, tensor in before.state_dict().items()}
    place_half(view, NUMBERS, "wanda", permuted=False)
    assert any(not torch.equal(tensor, state[key]) for key, tensor in before.state_dict().items())
    for row in view.widths:
        for width in row:
            Sparse().lift(HALF, width)
            width.restore()
    for key, tensor in before.state_dict().items():
        assert torch.equal(tensor, state[key]), key
