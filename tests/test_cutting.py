"""Layouts of tensors and live widths: what is permuted, cut and restored is the tensor that it was.

Each layout is a small block. What is kept of it is compared with indexing of plain copies of its weights.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.pytorch_utils import Conv1D

from autoprune.cutting import reading, zeros
from autoprune.cutting.layer_config import LayerConfig
from autoprune.cutting.live import LevelWeights, LiveWidth
from autoprune.cutting.segments import Segments
from autoprune.cutting.widths import Bundles, Segment, Slice, Width

GROUPS, HIDDEN = 6, 5
SEEDS = range(3)


# -- segments ----------------------------------------------------------------------------------------------------


SEGMENTS = {
    "one": (1, (Segment(2),)),
    "equal": (1, (Segment(2),) * 3),
    "unequal": (1, (Segment(1), Segment(3), Segment(2))),
    "shared": (2, (Segment(3, shared=True),)),
    "fused with fewer keys and values": (3, (Segment(2), Segment(2, shared=True), Segment(2, shared=True))),
}


def marked(groups: int, bundle: int, segments: tuple[Segment, ...]) -> Tensor:
    """For each entry of a dimension: segment, group or bundle, and place in the piece, `[entries, 3]`."""
    rows = [
        (s, piece, place)
        for s, segment in enumerate(segments)
        for piece in range(groups // bundle if segment.shared else groups)
        for place in range(segment.size)
    ]
    return torch.tensor(rows)


def order_of(groups: int, bundle: int, seed: int) -> Tensor:
    """A random order of the groups in which those of a bundle follow each other."""
    draw = torch.Generator().manual_seed(seed)
    bundles_B = torch.randperm(groups // bundle, generator=draw)
    within = [torch.randperm(bundle, generator=draw) for _ in bundles_B]
    return torch.cat([b * bundle + w for b, w in zip(bundles_B, within, strict=True)])


@pytest.mark.parametrize("name", SEGMENTS)
def test_entries_are_those_of_the_groups(name: str) -> None:
    bundle, segments = SEGMENTS[name]
    along, marks = Segments(GROUPS, bundle, segments), marked(GROUPS, bundle, segments)
    assert along.length(GROUPS) == len(marks)
    for seed in SEEDS:
        order = order_of(GROUPS, bundle, seed)
        for kept in (1, *range(bundle, GROUPS + 1, bundle)):
            index = order[:kept]
            bundles = list(dict.fromkeys((index // bundle).tolist()))
            expected = [
                (s, piece, place)
                for s, segment in enumerate(segments)
                for piece in (bundles if segment.shared else index.tolist())
                for place in range(segment.size)
            ]
            assert [tuple(row) for row in marks[along.entries(index)].tolist()] == expected
            assert along.length(kept) == len(expected)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("name", SEGMENTS)
def test_a_prefix_is_what_indexing_takes_and_padding_is_its_other_way(name: str, dim: int) -> None:
    bundle, segments = SEGMENTS[name]
    along = Segments(GROUPS, bundle, segments)
    shape = [2, 3, 4]
    shape[dim] = along.length(GROUPS)
    tensor = torch.randn(shape)
    for kept in (1, *range(bundle, GROUPS + 1, bundle)):
        prefix = along.prefix(tensor, dim, kept)
        assert torch.equal(prefix, along.taken(tensor, dim, torch.arange(kept)))
        assert (prefix.data_ptr() == tensor.data_ptr()) == (len(segments) == 1 or kept == GROUPS)
        padded = along.padded(prefix, dim, kept, GROUPS)
        entries = along.entries(torch.arange(kept))
        gone = torch.ones(shape[dim], dtype=torch.bool).index_fill(0, entries, False)
        expected = tensor.clone().index_fill(dim, gone.nonzero().flatten(), 0)
        assert torch.equal(padded, expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SEGMENTS)
def test_an_order_and_its_inverse_are_the_tensor(name: str, seed: int) -> None:
    bundle, segments = SEGMENTS[name]
    along = Segments(GROUPS, bundle, segments)
    tensor, order = torch.randn(3, along.length(GROUPS)), order_of(GROUPS, bundle, seed)
    assert torch.equal(along.taken(along.taken(tensor, 1, order), 1, order.argsort()), tensor)


# -- layouts -----------------------------------------------------------------------------------------------------


class Pair(nn.Module):
    """A width between two layers."""

    def __init__(self, producer: nn.Module, consumer: nn.Module, *between: nn.Module) -> None:
        super().__init__()
        self.producer, self.consumer = producer, consumer
        self.between = nn.Sequential(*between)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.consumer(torch.tanh(self.between(self.producer(x))))
        return out


class Fused(nn.Module):
    """Attention of one token by itself: q, k and v are one projection, with fewer heads of k and v."""

    def __init__(self) -> None:
        super().__init__()
        self.producer = nn.Linear(HIDDEN, (GROUPS + 2 * GROUPS // 3) * 2)
        self.consumer = nn.Linear(GROUPS * 2, HIDDEN)
        self.config: Any = Shared()
        self.kv_groups = 3

    def forward(self, x: Tensor) -> Tensor:
        heads = self.config.heads
        kv_heads = heads // self.kv_groups
        q, k, v = self.producer(x).split([heads * 2, kv_heads * 2, kv_heads * 2], dim=-1)
        k, v = (t.unflatten(-1, (kv_heads, 2)).repeat_interleave(self.kv_groups, -2).flatten(-2) for t in (k, v))
        out: Tensor = self.consumer(q * torch.sigmoid(k) + v)
        return out


class Shared:
    """A configuration."""

    heads, name = GROUPS, "shared"


class Experts(nn.Module):
    """Stacked matrices as transformers keeps those of a layer's experts; every expert is weighted by a router."""

    def __init__(self, experts: int, inside: int) -> None:
        super().__init__()
        self.router = nn.Linear(HIDDEN, experts, bias=False)
        self.num_experts = experts
        self.gate_up_proj = nn.Parameter(torch.randn(experts, 2 * inside, HIDDEN))
        self.down_proj = nn.Parameter(torch.randn(experts, HIDDEN, inside))

    def forward(self, x: Tensor) -> Tensor:
        weights_NE = self.router(x).sigmoid()
        out = torch.zeros_like(x)
        for e in range(self.num_experts):
            gate, up = functional.linear(x, self.gate_up_proj[e]).chunk(2, -1)
            out = out + weights_NE[:, e, None] * functional.linear(functional.silu(gate) * up, self.down_proj[e])
        return out


class Holding(nn.Module):
    """Something in a block."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


@dataclass(frozen=True)
class Case:
    """A block with a width, and how what it keeps is computed from plain copies.

    Args:
        block: makes it.
        width: its width.
        inputs: shape of what it reads.
        masked: (block, groups) -> the same without what belongs to other groups, at its full size.
    """

    block: Callable[[], nn.Module]
    width: Width
    inputs: tuple[int, ...]
    masked: Callable[[Any, Tensor], None]


def _no_columns(name: str, dim: int, size: int, reads: str = "weight") -> Callable[[Any, Tensor], None]:
    def masked(block: Any, gone_G: Tensor) -> None:
        weight = getattr(block.get_submodule(name), reads)
        weight.data.index_fill_(dim, _entries(gone_G, size), 0)

    return masked


def _entries(groups_G: Tensor, size: int) -> Tensor:
    return (groups_G[:, None] * size + torch.arange(size)).flatten()


CASES = {
    "linear": Case(
        lambda: Pair(nn.Linear(HIDDEN, GROUPS * 2), nn.Linear(GROUPS * 2, HIDDEN)),
        Width("mlp", GROUPS, (Slice("producer", 2, 0),), Slice("consumer", 2, 1), {"consumer": "zero-linear"}),
        (4, HIDDEN), _no_columns("consumer", 1, 2),
    ),
    "transposed": Case(
        lambda: Pair(Conv1D(GROUPS * 2, HIDDEN), Conv1D(HIDDEN, GROUPS * 2)),
        Width(
            "mlp", GROUPS, (Slice("producer", 2, 1),), Slice("consumer", 2, 0),
            {"producer": "identity", "consumer": "zero"},
        ),
        (4, HIDDEN), _no_columns("consumer", 0, 2),
    ),
    "convolution": Case(
        lambda: Pair(nn.Conv2d(3, GROUPS, 3, padding=1), nn.Conv2d(GROUPS, 4, 3), nn.BatchNorm2d(GROUPS)),
        Width(
            "conv", GROUPS, (Slice("producer", 1, 0), Slice("between.0", 1, 0)), Slice("consumer", 1, 1),
            {"consumer": "zero-convolution"},
        ),
        (2, 3, 6, 6), _no_columns("consumer", 1, 1),
    ),
    "depthwise": Case(
        lambda: Pair(nn.Conv2d(3, GROUPS, 1), nn.Conv2d(GROUPS, 4, 1), nn.Conv2d(GROUPS, GROUPS, 3, groups=GROUPS)),
        Width(
            "conv", GROUPS, (Slice("producer", 1, 0), Slice("between.0", 1, 0)), Slice("consumer", 1, 1),
            {"consumer": "zero-convolution"},
        ),
        (2, 3, 6, 6), _no_columns("consumer", 1, 1),
    ),
    "flattened": Case(
        lambda: Pair(nn.Conv2d(3, GROUPS, 1), nn.Linear(GROUPS * 4, HIDDEN), nn.Flatten()),
        Width("conv", GROUPS, (Slice("producer", 1, 0),), Slice("consumer", 4, 1), {"consumer": "zero-linear"}),
        (2, 3, 2, 2), _no_columns("consumer", 1, 4),
    ),
    "fused": Case(
        lambda: Holding(Fused()),
        Width(
            "attention", GROUPS,
            (Slice("inner.producer", 2, 0, more=(Segment(2, shared=True), Segment(2, shared=True))),),
            Slice("inner.consumer", 2, 1), {"inner": "zero"}, attributes={"inner.config.heads": 1},
            bundles=Bundles(size=3, sizes=("inner.kv_groups",)),
        ),
        (4, HIDDEN), _no_columns("inner.consumer", 1, 2),
    ),
    "experts": Case(
        lambda: Holding(Experts(GROUPS, 4)),
        Width(
            "experts", GROUPS, (Slice("inner.router", 1, 0), Slice("inner", 1, 0, parameter="gate_up_proj")),
            Slice("inner", 1, 0, parameter="down_proj"), {"inner": "zero"}, attributes={"inner.num_experts": 1},
        ),
        (4, HIDDEN), _no_columns("inner", 0, 1, "down_proj"),
    ),
    "inside of experts": Case(
        lambda: Holding(Experts(3, GROUPS * 2)),
        Width(
            "mlp", GROUPS, (Slice("inner", 2, 1, parts=2, parameter="gate_up_proj"),),
            Slice("inner", 2, 2, parameter="down_proj"), {"inner": "zero"},
        ),
        (4, HIDDEN), _no_columns("inner", 2, 2, "down_proj"),
    ),
}  # fmt: skip


@dataclass
class Made:
    """One case: the live block, its width, a copy that nobody touches, and something to read."""

    block: nn.Module
    live: LiveWidth
    twin: nn.Module
    case: Case
    x: Tensor

    def state(self) -> dict[str, Tensor]:
        """All tensors of the live block."""
        return {name: tensor.clone() for name, tensor in self.block.state_dict().items()}

    def masked(self, gone_G: Tensor) -> Tensor:
        """What the untouched copy gives without some groups."""
        twin = copy.deepcopy(self.twin)
        self.case.masked(twin, gone_G)
        out: Tensor = twin(self.x)
        return out

    def sizes(self) -> list[int]:
        """What can be kept."""
        return [kept for kept in range(1, GROUPS + 1) if self.live.width.can_keep(kept)]


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest) -> Made:
    case = CASES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = case.block().double().eval().requires_grad_(False)
        for buffer in block.buffers():
            buffer.data = buffer + torch.rand_like(buffer.double()).to(buffer.dtype)
        x = torch.randn(case.inputs, dtype=torch.float64)
    twin = copy.deepcopy(block)
    return Made(block, LiveWidth(block, case.width), twin, case, x)


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-10, atol=1e-10)


def test_whatever_is_kept_restoring_is_the_identity(made: Made) -> None:
    before, attributes = made.state(), repr(made.block)
    for kept in (*made.sizes(), 0, *made.sizes()[::-1], 0):
        made.live.keep(kept)
        assert made.live.kept == kept
        made.live.restore()
        after = made.state()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        assert repr(made.block) == attributes
        assert torch.equal(made.block(made.x), made.twin(made.x))


def test_what_is_kept_is_what_masking_leaves(made: Made) -> None:
    for kept in made.sizes():
        made.live.keep(kept)
        assert close(made.block(made.x), made.masked(torch.arange(kept, GROUPS)))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_order_changes_no_output_and_its_inverse_restores_every_tensor(made: Made, seed: int) -> None:
    before, order = made.state(), order_of(GROUPS, made.live.width.bundles.size, seed)
    made.live.permute(order)
    assert close(made.block(made.x), made.twin(made.x))
    for kept in made.sizes():
        made.live.keep(kept)
        gone_G = torch.tensor(sorted(set(range(GROUPS)) - set(order[:kept].tolist())), dtype=torch.long)
        assert close(made.block(made.x), made.masked(gone_G))
    made.live.restore()
    made.live.permute(order.argsort())
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state().items())


def test_selected_groups_are_a_prefix_of_an_order_that_begins_with_them(made: Made) -> None:
    bundle = made.live.width.bundles.size
    index = torch.arange(GROUPS)[bundle:]
    made.live.select(index)
    selected = made.state()
    made.live.restore()
    made.live.permute(torch.cat([index, torch.arange(bundle)]))
    made.live.keep(len(index))
    assert all(torch.equal(tensor, selected[name]) for name, tensor in made.state().items())


def test_the_consumers_matrix_reads_back_what_was_put(made: Made) -> None:
    live = made.live
    weight = live.dense.tensors[live.width.consumer.key]
    whole_OD = live.consumer_weight
    assert torch.equal(reading.laid_out(live, whole_OD), weight)
    size = whole_OD.shape[1] // GROUPS
    for kept in made.sizes():
        live.keep(kept)
        cut = live.dense.live(live.width.consumer.key).data
        assert torch.equal(reading.matrix(live, cut), whole_OD[:, : kept * size])
        assert torch.equal(reading.laid_out(live, whole_OD[:, : kept * size]), cut)
        given = 2 * cut
        live.keep(kept, LevelWeights(given))
        assert torch.equal(live.dense.live(live.width.consumer.key).data, given)


def test_the_matrix_on_the_rows_that_are_read_is_what_the_consumer_writes(made: Made) -> None:
    live, seen = made.live, []
    if live.width.consumer.parameter != "weight":
        with pytest.raises(NotImplementedError, match="each expert reads rows"):
            reading.rows(live, made.x)
        return
    hook = live.consumer.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    made.block(made.x)
    hook.remove()
    read, written = seen[0]
    rows_NO = reading.rows(live, read) @ live.consumer_weight.T
    if live.consumer.bias is not None:
        assert isinstance(live.consumer.bias, Tensor)
        rows_NO = rows_NO + live.consumer.bias
    channels_last = written.movedim(1, -1) if written.dim() == 4 else written
    assert close(rows_NO, channels_last.reshape(rows_NO.shape))


def test_padding_gives_the_full_size_and_changes_nothing(made: Made) -> None:
    shapes = {name: tensor.shape for name, tensor in made.state().items()}
    for kept in (*made.sizes(), 0):
        made.live.keep(kept)
        expected = made.block(made.x)
        zeros.pad(made.live, GROUPS)
        assert {name: tensor.shape for name, tensor in made.state().items()} == shapes
        if kept not in range(1, made.live.width.bundles.size):  # a part of a bundle has too many keys and values
            assert close(made.block(made.x), expected)
        made.live.restore()
        assert torch.equal(made.block(made.x), made.twin(made.x))


def test_parameters_of_a_unit_are_a_recount(made: Made) -> None:
    unit = made.live.unit(0, ())
    dense = sum(parameter.numel() for parameter in made.block.parameters())
    for kept in made.sizes():
        made.live.keep(kept)
        left = sum(parameter.numel() for parameter in made.block.parameters())
        assert dense - left == unit.params(GROUPS) - unit.params(kept)


def test_what_is_moved_is_kept_as_it_was(made: Made) -> None:
    for kept in (*made.sizes(), 0):
        made.live.keep(kept)
        expected = made.block(made.x)
        copies = {key: tensor.clone() for key, tensor in made.live.dense.tensors.items()}
        made.live.move(copies)
        assert torch.equal(made.block(made.x), expected)
        assert all(made.live.dense.tensors[key] is tensor for key, tensor in copies.items())


# -- configurations ----------------------------------------------------------------------------------------------


def test_a_layers_configuration_is_its_own_and_what_it_does_not_have_is_shared() -> None:
    shared = Shared()
    first, second = LayerConfig(shared), LayerConfig(shared)
    first.heads = 2
    assert (first.heads, second.heads, shared.heads) == (2, GROUPS, GROUPS)
    shared.name = "changed"
    assert first.name == second.name == "changed"
    with pytest.raises(AttributeError, match="nothing"):
        _ = first.nothing
    twin, its_shared = copy.deepcopy((first, shared))
    its_shared.name = "of the copy"
    assert (twin.heads, twin.name, first.name) == (2, "of the copy", "changed")


def test_blocks_that_read_a_shared_configuration_are_cut_one_by_one() -> None:
    shared = Shared()
    inners = [Fused() for _ in range(2)]
    blocks = [Holding(inner) for inner in inners]
    for inner in inners:
        inner.config = shared
    lives = [LiveWidth(block, CASES["fused"].width) for block in blocks]
    lives[0].keep(3)
    assert [inner.config.heads for inner in inners] == [3, GROUPS]
    assert shared.heads == GROUPS
    assert blocks[0](torch.randn(2, HIDDEN)).shape == blocks[1](torch.randn(2, HIDDEN)).shape


# -- experts of transformers -------------------------------------------------------------------------------------


def mixtral(experts: int, inside: int) -> Any:
    """A random network of one layer."""
    config = MixtralConfig(
        vocab_size=31, hidden_size=16, intermediate_size=inside, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=experts, num_experts_per_tok=2, max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MixtralForCausalLM(config)
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) / 4
    return model.eval().requires_grad_(False)


EXPERTS = Width(
    "experts", 6, (Slice("mlp.gate", 1, 0), Slice("mlp.experts", 1, 0, parameter="gate_up_proj")),
    Slice("mlp.experts", 1, 0, parameter="down_proj"), {"mlp": "zero"},
    attributes={"mlp.experts.num_experts": 1, "mlp.gate.num_experts": 1},
)  # fmt: skip
INSIDE = Width(
    "mlp", 8, (Slice("mlp.experts", 1, 1, parts=2, parameter="gate_up_proj"),),
    Slice("mlp.experts", 1, 2, parameter="down_proj"), {"mlp": "zero"},
)  # fmt: skip


@pytest.mark.parametrize("width", [EXPERTS, INSIDE], ids=["experts", "inside"])
def test_stacked_experts_that_are_cut_are_a_smaller_network_of_transformers(width: Width) -> None:
    model, tokens_BT = mixtral(6, 8), torch.arange(20).view(2, 10)
    live, kept = LiveWidth(model.model.layers[0], width), 4
    before = model(input_ids=tokens_BT).logits
    order = torch.randperm(width.groups, generator=torch.Generator().manual_seed(1))
    live.permute(order)
    assert torch.allclose(model(input_ids=tokens_BT).logits, before, rtol=1e-4, atol=1e-4)
    live.keep(kept)
    smaller = mixtral(kept, 8) if width is EXPERTS else mixtral(6, kept)
    smaller.load_state_dict(model.state_dict())
    assert torch.equal(model(input_ids=tokens_BT).logits, smaller(input_ids=tokens_BT).logits)
    unit = live.unit(0, ())
    assert model.num_parameters() == mixtral(6, 8).num_parameters() - unit.params(width.groups) + unit.params(kept)
