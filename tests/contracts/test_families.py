"""Every type of every family: units claim what they claim once, and cutting them is masking them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import Tensor, nn

from autoprune.cutting import zeros
from autoprune.cutting.live import LiveWidth
from autoprune.cutting.stand_ins import ZeroAttention
from autoprune.level import group_levels
from autoprune.networks.blocks import BlockView
from autoprune.networks.loading import family_of
from autoprune.networks.text import TextView
from tests import families

TOLERANCE = 2e-5

pytestmark = pytest.mark.parametrize("name", families.names())


def view_of(name: str, mlp_group: int = 1) -> BlockView:
    model = families.tiny_model(name)
    return TextView(model, family_of(model.config.model_type), mlp_group)


def logits(view: BlockView, tokens_BT: Tensor) -> Tensor:
    hidden = view.embed(tokens_BT)
    for block in range(len(view.blocks)):
        hidden = view.run(block, hidden)
    return view.head(hidden)


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * float(b.abs().max()))


def all_widths(view: BlockView) -> list[LiveWidth]:
    return [width for row in view.widths for width in row]


def test_level_0_is_the_original(name: str) -> None:
    view, tokens_BT = view_of(name), families.random_tokens(2, 13)
    original = view.model(input_ids=tokens_BT).logits
    assert original.std() > 0.05
    assert torch.equal(logits(view, tokens_BT), original)
    generator = torch.Generator().manual_seed(1)
    for width in all_widths(view):
        width.permute(drawn_order(width, generator))
    assert close(logits(view, tokens_BT), original)
    for width in all_widths(view):
        width.keep(0)
        zeros.pad(width, width.width.groups)
        width.keep(width.width.groups)
    assert close(view.model(input_ids=tokens_BT).logits, original)


def drawn_order(width: LiveWidth, generator: torch.Generator) -> Tensor:
    """Any order of the groups in which those of a bundle follow each other."""
    size = width.width.bundles.size
    bundles_B = torch.randperm(width.width.groups // size, generator=generator)
    within_BG = torch.stack([torch.randperm(size, generator=generator) for _ in bundles_B])
    return (bundles_B[:, None] * size + within_BG).flatten()


def drawn_kept(width: LiveWidth, generator: torch.Generator) -> int:
    """Any number of groups that a level may keep, but none."""
    possible = [kept for kept in range(1, width.width.groups + 1) if width.width.can_keep(kept)]
    return possible[int(torch.randint(len(possible), (), generator=generator))]


@pytest.mark.parametrize("seed", [0, 1])
def test_sliced_is_masked(name: str, seed: int) -> None:
    sliced, masked = view_of(name, mlp_group=2), view_of(name, mlp_group=2)
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = families.random_tokens(2, 13, seed)
    with ExitStack() as masks:
        for ours, theirs in zip(all_widths(sliced), all_widths(masked), strict=True):
            kept = 0 if torch.rand((), generator=generator) < 0.3 else drawn_kept(ours, generator)
            ours.keep(kept)
            masks.enter_context(masked_to(theirs, kept))
        expected = masked.model(input_ids=tokens_BT).logits
        assert close(logits(sliced, tokens_BT), expected)
        assert close(sliced.model(input_ids=tokens_BT).logits, expected)


@contextmanager
def masked_to(width: LiveWidth, kept: int) -> Iterator[None]:
    """The dense module with the consumer's dropped inputs at zero; of a dropped sub-block the bias is gone too."""
    size = width.consumer_weight.shape[1] // width.width.groups

    def mask(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0].clone()
        x[..., kept * size :] = 0
        return (x, *args[1:])

    bias = getattr(width.consumer, "bias", None)
    before = None if bias is None else bias.clone()
    with hooked(width.consumer, mask):
        if bias is not None and kept == 0:
            bias.zero_()
        yield
        if bias is not None:
            bias.copy_(before)


@contextmanager
def hooked(module: nn.Module, hook: Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook)
    yield
    handle.remove()


TANGLED = {"cohere", "cohere2", "cohere-qk-norm", "stablelm-parallel", "opt-post-norm"}
"""Attention and MLP read the same hidden state; or (OPT) norms behind both are applied to the residual stream."""


def test_a_block_is_what_its_units_do_one_after_another(name: str) -> None:
    view, tokens_BT = view_of(name), families.random_tokens(2, 13)
    hidden = view.embed(tokens_BT)
    attention, mlp = view.widths[1]
    attention.keep(1)
    mlp.keep(mlp.width.groups // 2)
    whole = view.run(1, hidden)
    mlp.keep(0)
    between = view.run(1, hidden)
    attention.keep(0)
    mlp.keep(mlp.width.groups // 2)
    assert torch.equal(view.run(1, between), whole) == (name not in TANGLED)


def test_costs_are_a_recount(name: str) -> None:
    view = view_of(name)
    generator = torch.Generator().manual_seed(2)
    for b, row in enumerate(view.widths):
        block = view.blocks[b]
        for width in row:
            groups = width.width.groups
            unit = width.unit(b, group_levels(groups, (groups, 0)))
            dense = count(block)
            kept = drawn_kept(width, generator)
            width.keep(kept)
            assert dense - count(block) == unit.params(groups) - unit.params(kept)
            width.keep(0)
            assert dense - count(block) == unit.params(groups) + unit.fixed_params
            width.keep(groups)
            assert count(block) == dense


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_each_weight_is_in_one_unit(name: str) -> None:
    view = view_of(name)
    for block, row in zip(view.blocks, view.widths, strict=True):
        claimed = [path for width in row for path in claims(width)]
        assert len(claimed) == len(set(claimed))
        matrices = {path for path, p in block.named_parameters() if p.dim() == 2 and "norm" not in path}
        assert matrices <= set(claimed)
        assert {width.width.kind for width in row} == {"attention", "mlp"}
        attention = block.get_submodule(view.family.attention)
        row[0].keep(0)
        assert isinstance(block.get_submodule(view.family.attention), ZeroAttention)
        row[0].keep(row[0].width.groups)
        assert block.get_submodule(view.family.attention) is attention


def claims(width: LiveWidth) -> list[str]:
    """Parameters that leave with a unit: sliced ones, and whatever stands in what is dropped."""
    sliced = [
        f"{s.module}.{name}"
        for s in (*width.width.producers, width.width.consumer)
        for name, _ in width.block.get_submodule(s.module).named_parameters(recurse=False)
    ]
    dropped = [
        f"{path}.{name}"
        for path in width.width.on_drop
        for name, _ in width.block.get_submodule(path).named_parameters()
    ]
    assert len(sliced) == len(set(sliced))
    return sorted({*sliced, *dropped})
