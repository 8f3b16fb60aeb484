"""What criteria order by besides weights and moments: derivatives of gates, scales of BatchNorm, and who gets them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune import registry
from autoprune.assembly import assemble
from autoprune.calibration.gradients import gate_gradients
from autoprune.calibration.moments import collect, links_of
from autoprune.config import load_config
from autoprune.cutting import reading
from autoprune.cutting.live import LiveWidth
from autoprune.errors import UserError
from autoprune.level import group_levels
from autoprune.levels.evidence import check_needs, gather
from autoprune.levels.store import LevelStore, build
from autoprune.networks.blocks import BlockView
from autoprune.networks.images import ImageView
from autoprune.networks.loading import family_of
from autoprune.networks.text import TextView
from tests import families, image_families

CRITERIA = registry.names("criteria")
WITH_SCALES = [name for name in image_families.names() if name.startswith(("mobilenet", "resnet", "plain"))]
STEPS = dict.fromkeys(("llama", "cohere", "gemma2", "vit", "deit"), 1e-3)
"""Of finite differences: 1e-6 in float64, where few activations cross 0; these have norms or attention in float32."""


def view_of(name: str) -> tuple[BlockView, Tensor]:
    """A network as blocks, and what it reads."""
    if name in image_families.names():
        return image_families.view_of(name), torch.arange(8).view(2, 4)
    model = families.tiny_model(name)
    return TextView(model, family_of(model.config.model_type)), families.random_tokens(3, 10)


def all_links(view: BlockView) -> list[LiveWidth]:
    return [link for widths in view.widths for link in links_of(widths)]


def losses(view: BlockView, tokens_NT: Tensor) -> Tensor:
    """Cross-entropy of each example in nats per prediction, `[N]`, from the network as a whole."""
    with torch.no_grad():
        logits = view(tokens_NT).double()
    labels = view.labels(tokens_NT)
    if isinstance(view, ImageView):
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")[:, :-1].mean(1)


@contextmanager
def gate(link: LiveWidth, group: int, value: float) -> Iterator[None]:
    """Multiply what the consumer reads of a group."""
    size = link.width.consumer.size

    def multiply(module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        x = args[0].clone()
        x.narrow(1 if isinstance(module, nn.Conv2d) else -1, group * size, size).mul_(value)
        return x

    hook = link.consumer.register_forward_pre_hook(multiply)
    yield
    hook.remove()


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "cohere", "gemma2", *image_families.names()])
def test_derivatives_of_gates_are_finite_differences(name: str) -> None:
    view, tokens_NT = view_of(name)
    view.model.double()  # before the widths look at its weights, which keep float32 otherwise
    kind: Any = type(view)  # views take different arguments
    view = kind(view.model, view.family, *([view.images] if isinstance(view, ImageView) else []))
    found = [gradients_NG for row in gate_gradients(view, tokens_NT, 2) for gradients_NG in row]
    links, step = all_links(view), STEPS.get(name, 1e-6)
    assert len(found) == len(links)
    for i, link in enumerate(links):
        assert found[i].shape == (tokens_NT.numel() if isinstance(view, ImageView) else 3, link.width.groups)
        scale = float(found[i].abs().max())
        assert scale > 1e-5
        for group in {0, link.width.groups - 1}:
            with gate(link, group, 1 + step):
                more_N = losses(view, tokens_NT)
            with gate(link, group, 1 - step):
                less_N = losses(view, tokens_NT)
            difference_N = ((more_N - less_N) / (2 * step)).float()
            assert torch.allclose(found[i][:, group], difference_N, rtol=5e-3, atol=5e-3 * scale), (i, group)


@pytest.mark.parametrize("name", ["llama", "resnet-bottleneck"])
def test_derivatives_do_not_depend_on_the_batch_and_leave_the_network_alone(name: str) -> None:
    view, tokens_NT = view_of(name)
    before = view(tokens_NT)
    one, all_at_once = gate_gradients(view, tokens_NT, 1), gate_gradients(view, tokens_NT, 8)
    for a, b in zip(one, all_at_once, strict=True):
        assert all(torch.allclose(x, y, rtol=1e-3, atol=1e-5) for x, y in zip(a, b, strict=True))
    assert torch.equal(view(tokens_NT), before)
    assert not any(parameter.requires_grad for parameter in view.model.parameters())


def test_taylor_sees_behind_the_consumer_what_weights_and_inputs_do_not_tell() -> None:
    """A channel is read with the largest weights of all, and what they give is read by nobody; another is amplified."""
    view, tokens_NT = view_of("plain-basic")
    block: Any = view.blocks[-1]
    fc: Any = view.model.get_submodule("fc")
    with torch.no_grad():
        block.conv2.weight[:, 2] = 0
        block.conv2.weight[5, 2] = 100
        fc.weight[:, 5] = 0
        block.conv2.weight[:5, 7] *= 20
    view = ImageView(view.model, view.family, image_families.images())
    moments, width = list(collect(view, tokens_NT, 2)), view.widths[-1][0]
    h_DD, _ = reading.moments(width, moments[-1][0])
    orders = {}
    for name in CRITERIA:
        criterion = registry.load("criteria", name)()
        known = gather(criterion, view, tokens_NT, 2)[-1][0]
        orders[name] = criterion.order(width.consumer_weight, h_DD, width.width.groups, **known).tolist()
    assert orders["taylor"][-1] == 2
    assert orders["taylor"][0] == 7
    assert [orders[name][0] for name in ("magnitude", "wanda", "obs")] == [2, 2, 2]


@pytest.mark.parametrize("name", WITH_SCALES)
def test_bn_scale_orders_by_the_last_batch_norm_that_writes_each_width(name: str) -> None:
    view, tokens_NT = view_of(name)
    draw = torch.Generator().manual_seed(4)
    expected = []
    for link in all_links(view):
        norms = [link.block.get_submodule(s.module) for s in link.width.producers]
        last: Any = [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)][-1]
        order = torch.randperm(link.width.groups, generator=draw)
        sign = torch.randint(2, (len(order),), generator=draw) * 2 - 1
        with torch.no_grad():
            last.weight[order] = torch.linspace(2, 0.1, len(order)) * sign
        expected.append(order.tolist())
    criterion = registry.load("criteria", "bn-scale")()
    known = [one for row in gather(criterion, view, tokens_NT, 2) for one in row]
    orders = [
        criterion.order(link.consumer_weight, torch.zeros(0), link.width.groups, **one).tolist()
        for link, one in zip(all_links(view), known, strict=True)
    ]
    assert orders == expected


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", ["resnet-bottleneck", "mobilenet-v2", "vit"])
def test_every_criterion_builds_the_levels_of_networks_that_read_images(
    criterion: str, name: str, tmp_path: Path
) -> None:
    view, tokens_NT = view_of(name)
    part = registry.load("criteria", criterion)()
    if name == "vit" and criterion == "bn-scale":
        with pytest.raises(UserError, match=r"BatchNorm, and none with scales writes the unit 0\.attention .*choose"):
            check_needs(criterion, part, view)
        return
    check_needs(criterion, part, view)
    units = [
        width.unit(b, group_levels(width.width.groups, (width.width.groups, width.width.groups // 2)))
        for b, row in enumerate(view.widths)
        for width in row
    ]
    evidence = gather(part, view, tokens_NT, 2)
    build(tmp_path / "store", view, units, collect(view, tokens_NT, 2), part, torch.float32, evidence=evidence)
    store, dense = LevelStore(tmp_path / "store", units), view(tokens_NT)
    for u, width in enumerate(width for row in view.widths for width in row):
        assert [sorted(order.tolist()) for order in store.orders(u)] == [list(range(units[u].groups))] * len(
            width.links
        )
        width.permute(*store.orders(u))
    assert torch.allclose(view(tokens_NT), dense, rtol=1e-3, atol=1e-4)
    for u, width in enumerate(width for row in view.widths for width in row):
        width.keep(units[u].levels[1].kept, store.weights(u, 1))
    assert torch.isfinite(view(tokens_NT)).all()


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "bn-scale"])
def test_every_other_criterion_serves_language_models(criterion: str, quick: dict[str, Any]) -> None:
    assembly = assemble(load_config(None, quick | {"criterion": criterion}))
    for u, unit in enumerate(assembly.space.units):
        assert sorted(assembly.store.order(u).tolist()) == list(range(unit.groups))
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    dense, half = evaluator.score([assembly.space.dense, assembly.space.uniform()], [0, 1]).mean(1)
    assert abs(dense) < 1e-5 < half < np.inf


def test_a_neuron_that_nobody_reads_leaves_first_and_one_that_shouts_leaves_last() -> None:
    view, tokens_NT = view_of("llama")
    down: Any = view.blocks[2].get_submodule("mlp.down_proj")
    with torch.no_grad():
        down.weight[:, 11] = 0
        down.weight[:, 5] *= 20
    gradients_NG = gate_gradients(view, tokens_NT, 1)[2][1]
    order = registry.load("criteria", "taylor")().order(down.weight, torch.zeros(0), 48, gradients_NG=gradients_NG)
    assert order[-1] == 11
    assert order[0] == 5


def test_bn_scale_is_refused_for_language_models(refused: Callable[..., str], quick_arguments: list[str]) -> None:
    seen = ("'bn-scale'", "BatchNorm", "0.attention", "obs")
    refused("search", *quick_arguments, "--criterion", "bn-scale", seen=seen)


def test_derivatives_of_streamed_blocks_are_refused_until_the_levels_are_there(quick: dict[str, Any]) -> None:
    # a text of its own length, whose levels no other test has built
    streamed = quick | {"criterion": "taylor", "reconstruction_sequences": 3, "device_memory": 2**30}
    with pytest.raises(UserError, match=r"device_memory.*search once without it.*criterion obs"):
        assemble(load_config(None, streamed))
    plain = assemble(load_config(None, streamed | {"device_memory": None}))
    assert assemble(load_config(None, streamed)).store.directory == plain.store.directory


OWN = """
class Old:
    reconstructs = False
    def order(self, weight_OD, moments_DD, groups):
        return weight_OD.new_tensor(range(groups)).long().flip(0)

class New(Old):
    needs = ("gradients_NG",)
    def order(self, weight_OD, moments_DD, groups, gradients_NG):
        return gradients_NG.abs().mean(0).argsort()

class Asks(Old):
    needs = ("horoscope",)
"""


def test_criteria_of_the_users_own_get_what_they_ask_for(quick: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    old = assemble(load_config(None, quick | {"criterion": f"{tmp_path}/own.py:Old"}))
    assert old.store.order(1).tolist() == list(range(96))[::-1]
    new = assemble(load_config(None, quick | {"criterion": f"{tmp_path}/own.py:New"}))
    assert sorted(new.store.order(1).tolist()) == list(range(96))
    with pytest.raises(UserError, match="needs 'horoscope', and what can be had is gradients_NG, scales_C"):
        assemble(load_config(None, quick | {"criterion": f"{tmp_path}/own.py:Asks"}))
