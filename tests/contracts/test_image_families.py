"""Every family of networks that read images: cutting is masking, and what is predicted is what is counted."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune import registry
from autoprune.config import load_config
from autoprune.cutting.live import LiveWidth
from autoprune.level import group_levels
from autoprune.networks.images import ImageView
from autoprune.testing.toys import at
from tests import image_families

pytestmark = pytest.mark.parametrize("name", image_families.names())
NUMBERS = torch.arange(4).view(2, 2)


def logits(view: ImageView) -> Tensor:
    hidden = view.embed(NUMBERS)
    for block in range(len(view.blocks)):
        hidden = view.run(block, hidden)
    return view.head(hidden)


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=2e-5, atol=2e-5 * float(b.abs().max()))


def all_widths(view: ImageView) -> list[LiveWidth]:
    return [width for row in view.widths for width in row]


def test_level_0_is_the_original(name: str) -> None:
    view = image_families.view_of(name)
    original = view(NUMBERS)
    assert original.std() > 0.05
    assert close(logits(view), original)
    draw = torch.Generator().manual_seed(1)
    for width in all_widths(view):
        width.permute(*(torch.randperm(width.width.groups, generator=draw) for _ in width.links))
    assert close(logits(view), original)
    for kept in (1, 0, 2):
        for width in all_widths(view):
            width.keep(kept)
        assert not close(view(NUMBERS), original)
    for width in all_widths(view):
        width.keep(width.width.groups)
    assert close(view(NUMBERS), original)


@pytest.mark.parametrize("seed", [0, 1])
def test_sliced_is_masked(name: str, seed: int) -> None:
    sliced, masked = image_families.view_of(name), image_families.view_of(name)
    draw = torch.Generator().manual_seed(seed)
    with ExitStack() as masks:
        for ours, theirs in zip(all_widths(sliced), all_widths(masked), strict=True):
            kept = int(torch.randint(ours.width.groups + 1, (), generator=draw))
            kept = 0 if ours.width.droppable and torch.rand((), generator=draw) < 0.3 else max(1, kept)
            ours.keep(kept)
            for link in theirs.links:
                masks.enter_context(masked_to(link, kept))
        expected = masked(NUMBERS)
        assert close(logits(sliced), expected)
        assert close(sliced(NUMBERS), expected)


@contextmanager
def masked_to(width: LiveWidth, kept: int) -> Iterator[None]:
    """The dense module with its readers' dropped inputs at zero; a dropped sub-block gives nothing at all."""
    readers = {
        width.block.get_submodule(s.module): s.size
        for s in (*width.width.producers, width.width.consumer)
        if s.reads or s is width.width.consumer
    }

    def mask(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0].clone()
        if isinstance(module, nn.Conv2d):
            x[:, kept:] = 0
        else:
            x[..., kept * readers[module] :] = 0
        return (x,)

    def silence(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return out if kept else torch.zeros_like(out)

    last = width.block.get_submodule(width.width.norm) if width.width.norm else width.consumer
    hooks = [reader.register_forward_pre_hook(mask) for reader in readers]
    hooks.append(last.register_forward_hook(silence))
    yield
    for hook in hooks:
        hook.remove()


def test_macs_and_params_are_a_recount(name: str) -> None:
    """What a policy saves is what torch counts less (fvcore counts alike), and what is claimed is there."""
    view = image_families.view_of(name)
    widths = [(b, width) for b, row in enumerate(view.widths) for width in row]
    units = [width.unit(b, group_levels(width.width.groups, (width.width.groups,))) for b, width in widths]
    workload = load_config(None, {}).workload_of()
    metrics = {metric: registry.load("budgets", metric) for metric in ("params", "macs")}
    dense = counted(view)
    draw = torch.Generator().manual_seed(2)
    for _ in range(3):
        kept_U = [int(torch.randint(1, unit.groups + 1, (), generator=draw)) for unit in units]
        saved = {
            metric: sum(
                cost(unit, unit.levels[0], workload) - cost(unit, at(unit, kept), workload)
                for unit, kept in zip(units, kept_U, strict=True)
            )
            for metric, cost in metrics.items()
        }
        for (_, width), kept in zip(widths, kept_U, strict=True):
            width.keep(kept)
        now = counted(view)
        assert {metric: dense[metric] - now[metric] for metric in dense} == saved
    for (_, width), unit in zip(widths, units, strict=True):
        width.keep(unit.groups)
        before = counted(view)["params"]
        width.keep(0)
        assert before - counted(view)["params"] == unit.params(unit.groups) + unit.fixed_params
        width.keep(unit.groups)


def counted(view: ImageView) -> dict[str, int]:
    """Parameters, and multiply-accumulates of one image."""
    with FlopCounterMode(display=False) as counter:
        view.model(view.pixels(torch.zeros(1, dtype=torch.long)))
    return {
        "params": sum(parameter.numel() for parameter in view.model.parameters()),
        "macs": counter.get_total_flops() // 2,
    }
