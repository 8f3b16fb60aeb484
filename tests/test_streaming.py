"""Networks larger than the device: the same losses bit for bit, no more memory than allowed, the next block early."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from autoprune import api, search
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.cutting import reading
from autoprune.cutting.live import LevelWeights, LiveWidth
from autoprune.errors import UserError
from autoprune.files.cache import cache_directory
from autoprune.mask import Mask
from autoprune.networks import streamer as streaming
from autoprune.networks.blocks import BlockView
from autoprune.networks.courier import Courier
from autoprune.networks.images import ImageView
from autoprune.networks.loading import load_model
from autoprune.networks.streamer import Streamer
from autoprune.networks.streaming import StreamedView
from autoprune.space import Proposal, SearchSpace
from tests import image_families
from tests.families import save_tiny

SMALL = {"sequence_length": 16, "reconstruction_sequences": 6, "search_sequences": 5, "validation_sequences": 2}
MARGINS = (0, 10_000, 60_000, 10**9)
"""Beyond the smallest memory: one block, some room, most blocks, everything."""


def smallest_memory(settings: dict[str, Any], masks: bool = False) -> int:
    """What the message says that works."""
    with pytest.raises(UserError, match="device_memory=1 is too small") as refused:
        assemble(load_config(None, settings | {"device_memory": 1}), masks=masks)
    found = re.search(r"smallest that works is (\d+)", str(refused.value))
    assert found
    return int(found[1])


def streamer_of(assembly: Assembly) -> Streamer:
    assert isinstance(assembly.view, StreamedView)
    return assembly.view.streamer


def proposals(space: SearchSpace, seed: int, masks: bool) -> list[Proposal]:
    """Some that share prefixes, and with `masks` as many that do not."""
    rng = np.random.default_rng(seed)
    levels: list[Proposal] = [space.dense, space.sparsest, *(space.sample(rng) for _ in range(3))]
    levels += [space.mutate(space.uniform(), rng, 2) for _ in range(3)]
    drawn = [Mask.pack([rng.random(groups) < 0.5 for groups in space.groups]) for _ in range(4 if masks else 0)]
    nothing = [Mask.pack([np.zeros(groups, dtype=bool) for groups in space.groups])] if masks else []
    return [*levels, *drawn, *nothing]


@pytest.fixture(scope="module", params=["llama", "gpt2", "opt"])
def settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, text_file: str
) -> dict[str, Any]:
    path = save_tiny(request.param, tmp_path_factory.mktemp("streamed") / request.param)
    return {"model": str(path), "data": text_file, "levels": 4, "batch": 2, **SMALL}


@contextmanager
def really_held(assembly: Assembly) -> Iterator[list[int]]:
    """Bytes of every copy that is alive, whether it is counted or only referred to, whenever a block has run."""
    seen: list[int] = []
    rows = assembly.view.widths
    streamer_of(assembly).rest()
    stored = [tensor for unit in assembly.store._tensors for tensor in unit.values()]
    latest = list(assembly.placer.masked._latest.values()) if assembly.placer.masked else []
    home = {t.untyped_storage().data_ptr() for row in rows for width in row for t in width.dense.tensors.values()}
    home |= {t.untyped_storage().data_ptr() for t in [*stored, *latest]}
    run = assembly.view.run

    def measured(block: int, hidden_BTD: Tensor) -> Tensor:
        out = run(block, hidden_BTD)
        masked = list(assembly.placer.masked._latest.values()) if assembly.placer.masked else []
        here = [p.data for row in rows for width in row for p in width.dense.parameters()]
        here += [t for copy in streamer_of(assembly)._held.values() for t in copy.device]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in here}
        known = home | {t.untyped_storage().data_ptr() for t in masked}
        seen.append(sum(nbytes for pointer, nbytes in storages.items() if pointer not in known))
        return out

    assembly.view.run = measured  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del assembly.view.run


@pytest.mark.parametrize("masks", [False, True])
def test_losses_are_the_same_bit_for_bit_in_any_memory(settings: dict[str, Any], masks: bool) -> None:
    plain = assemble(load_config(None, settings), masks=masks)
    policies, sequences = proposals(plain.space, 0, masks), [3, 0, 4, 1]
    expected = plain.evaluator(plain.splits.search, "kl", "ce").score_each(policies, sequences)
    smallest = smallest_memory(settings, masks)
    for margin in MARGINS:
        config = load_config(None, settings | {"device_memory": smallest + margin})
        assembly = assemble(config, masks=masks)
        streamer = streamer_of(assembly)
        evaluator = assembly.evaluator(assembly.splits.search, "kl", "ce")
        with really_held(assembly) as held:
            for _ in range(2):  # the second finds some blocks there already
                assert np.array_equal(evaluator.score_each(policies, sequences), expected)
        assert streamer.peak_bytes <= smallest + margin
        assert 0 < max(held) <= smallest + margin - streamer._set_aside
        assert all(copy.waiting is None or not copy.waiting.exception() for copy in streamer._held.values())


def test_a_byte_less_than_the_smallest_memory_is_refused(settings: dict[str, Any]) -> None:
    smallest = smallest_memory(settings)
    with pytest.raises(UserError, match=f"device_memory={smallest - 1} is too small.*works is {smallest}"):
        assemble(load_config(None, settings | {"device_memory": smallest - 1}))


def test_whole_forward_passes_are_those_of_the_placed_policy(settings: dict[str, Any]) -> None:
    plain = assemble(load_config(None, settings), masks=True)
    config = load_config(None, settings | {"device_memory": smallest_memory(settings, True) + 10_000})
    assembly = assemble(config, masks=True)
    tokens_NT = assembly.splits.search
    for policy in [*proposals(plain.space, 1, True), plain.space.dense]:
        plain.placer.place(policy)
        assembly.placer.place(policy)
        expected = plain.loaded.model(input_ids=tokens_NT).logits
        for _ in range(2):  # blocks come and go, and what is kept of them stays
            assert torch.equal(assembly.loaded.model(input_ids=tokens_NT).logits, expected)


def test_levels_and_moments_are_the_same(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = []
    for name, memory in [("plain", None), ("streamed", smallest_memory(settings, True))]:
        monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / name))
        assemble(load_config(None, settings | {"device_memory": memory}), masks=True)
        files.append({p.relative_to(cache_directory()): load_file(p) for p in cache_directory().rglob("*.safetensors")})
    assert files[0].keys() == files[1].keys()
    for path, tensors in files[0].items():
        assert all(torch.equal(tensor, files[1][path][key]) for key, tensor in tensors.items())


# -- what is brought, and when -----------------------------------------------------------------------------------


@contextmanager
def transfers(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """`send B`, `level B` and `run B` in the order that they happen."""
    events: list[str] = []
    load, run = Streamer._load, BlockView.run

    def loading(self: Streamer, key: tuple[str, int], block: int, nbytes: int, host: list[Tensor]) -> Any:
        events.append(f"{'send' if key[0] == 'dense' else 'level'} {block}")
        return load(self, key, block, nbytes, host)

    def running(self: BlockView, block: int, hidden: Tensor) -> Tensor:
        events.append(f"run {block}")
        return run(self, block, hidden)

    with monkeypatch.context() as patch:
        patch.setattr(Streamer, "_load", loading)
        patch.setattr(BlockView, "run", running)
        yield events


def ready(settings: dict[str, Any], blocks: float) -> Assembly:
    """With room for so many blocks."""
    smallest = smallest_memory(settings)
    plain = assemble(load_config(None, settings))
    largest = max(sum(map(streaming.dense_bytes, row)) for row in plain.view.widths)
    config = load_config(None, settings | {"device_memory": smallest + int((blocks - 1) * largest)})
    return assemble(config)


def test_the_next_block_is_sent_before_one_is_run(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assembly = ready(quick, 2.5)
    hidden = assembly.view.embed(assembly.splits.search[:1])
    streamer_of(assembly).rest()
    with transfers(assembly, monkeypatch) as events:
        for block in range(4):
            hidden = assembly.view.run(block, hidden)
    assert events == [
        "run 0", "send 0", "send 1", "run 1", "send 2", "run 2", "send 3", "run 3", "send 0",
    ]  # fmt: skip


def test_blocks_that_fit_stay(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sends = {}
    for blocks in (1, 2, 3, 4):
        assembly = ready(quick, blocks)
        hidden = assembly.view.embed(assembly.splits.search[:1])
        streamer_of(assembly).rest()
        for block in range(4):
            assembly.view.run(block, hidden)
        with transfers(assembly, monkeypatch) as events:
            for _ in range(3):
                for block in range(4):
                    assembly.view.run(block, hidden)
        sends[blocks] = len([event for event in events if event.startswith("send")]) / 3
    assert sends[1] == 4
    assert sends[4] == 0
    assert sends[1] >= sends[2] > sends[3] > sends[4]


def test_one_pass_of_transfers_serves_all_policies_and_sequences(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly = ready(quick, 3.5)
    rng = np.random.default_rng(0)
    policies = [assembly.space.sample(rng) for _ in range(3)]
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    evaluator.score(policies[:1], range(8))
    streamer_of(assembly).rest()
    with transfers(assembly, monkeypatch) as events:
        evaluator.score(policies, range(2))
    assert [event for event in events if event.startswith("send")] == ["send 0", "send 1", "send 2", "send 3", "send 0"]
    levels = [{policy[2 * b : 2 * b + 2] for policy in policies} for b in range(4)]
    assert sum(event.startswith("run") for event in events) == 2 * sum(
        len({policy[: 2 * b + 2] for policy in policies}) for b in range(4)
    )
    assert all(events.count(f"level {b}") <= 2 * len(levels[b]) for b in range(1, 4)), "each level comes once"


def test_a_thread_that_fails_is_heard(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assembly = ready(quick, 2.5)
    hidden = assembly.view.embed(assembly.splits.search[:1])
    streamer_of(assembly).rest()

    def fail(self: Any, host: Sequence[Tensor], device: Sequence[Tensor], ready: Any) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Courier, "_copy", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        assembly.view.run(0, hidden)


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 9, 14])
def test_an_interruption_leaves_the_network_whole(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """A search ends with what it has after Ctrl-C, which may come while a block is changed over."""
    assembly = ready(quick, 2.5)
    policies = proposals(assembly.space, 2, masks=False)
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    expected = evaluator.score(policies, [0, 1])
    streamer_of(assembly).rest()
    move, left = LiveWidth.move, [calls]

    def interrupted(self: LiveWidth, tensors: Any) -> None:
        left[0] -= 1
        if left[0] == -1:
            self.dense.tensors.update(tensors)  # half of it is done
            raise KeyboardInterrupt
        move(self, tensors)

    monkeypatch.setattr(LiveWidth, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluator.score(policies, [0, 1])
    assert np.array_equal(evaluator.score(policies, [0, 1]), expected)
    assembly.placer.place(assembly.space.dense)
    logits = assembly.loaded.model(input_ids=assembly.splits.search[:1]).logits
    streamer_of(assembly).rest()
    assert torch.equal(assembly.loaded.model(input_ids=assembly.splits.search[:1]).logits, logits)
    assert streamer_of(assembly).peak_bytes <= streamer_of(assembly).memory


def test_hidden_states_wait_in_the_hosts_memory_where_the_device_has_no_room(quick: dict[str, Any]) -> None:
    assembly = ready(quick, 1)
    streamer = streamer_of(assembly)
    with streamer.hold(2**20, 10**9) as (pieces, where):
        assert (pieces, where.type) == (streaming.HOST_BYTES // 2**20, "cpu")
        assert streamer.resident_bytes <= streamer.memory
    roomy = streamer_of(ready(quick, 4))
    before = roomy.resident_bytes
    with roomy.hold(1000, 10**9) as (pieces, _):
        assert pieces == (roomy.spare + 1000 * pieces - roomy.largest) // 1000
    assert roomy.resident_bytes == before
    with roomy.hold(1000, 3) as (pieces, _):
        assert pieces == 3


# -- whole searches ----------------------------------------------------------------------------------------------


def test_a_search_finds_the_same(quick: dict[str, Any], tmp_path: Path) -> None:
    memory = smallest_memory(quick) + 50_000
    own: dict[str, Any] = {"agent_options": {"slope_sequences": 0}}  # which there are none of where blocks are streamed
    plain, streamed = (
        search(**quick, **own, out=tmp_path / name, device_memory=size)
        for name, size in [("plain", None), ("streamed", memory)]
    )
    assert streamed.policy.units == plain.policy.units
    assert [loss for _, _, loss in streamed.history] == [loss for _, _, loss in plain.history]
    for ours, theirs in zip(streamed.table, plain.table, strict=True):
        assert (ours.validation_loss, ours.validation_ce) == (theirs.validation_loss, theirs.validation_ce)
        assert ours.tokens_per_second > 0
    assert streamer_of(streamed.assembly).peak_bytes <= memory
    for uniform in (False, True):
        paths = [tmp_path / f"{name}-{uniform}" for name in ("plain", "streamed")]
        for result, path in zip((plain, streamed), paths, strict=True):
            result.export(path, uniform=uniform)
        ours, theirs = (load_file(path / "model.safetensors") for path in paths)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    reports = [api.evaluate(tmp_path / name)["cross_entropy"] for name in ("plain", "streamed")]
    assert reports[0] == reports[1]


def test_too_little_memory_is_a_sentence(
    refused: Callable[..., str], quick_arguments: list[str], quick: dict[str, Any], tmp_path: Path
) -> None:
    smallest = smallest_memory(quick)
    seen = ("device_memory=100000", f"smallest that works is {smallest}")
    refused("search", *quick_arguments, "--device-memory", "100kB", "--out", tmp_path / "run", seen=seen)


def test_without_it_nothing_streams(quick: dict[str, Any]) -> None:
    assembly = assemble(load_config(None, quick))
    assert not assembly.view.streamed
    assert load_model(quick["model"], "cpu", home="cpu").digest == assembly.loaded.digest


# -- any network -------------------------------------------------------------------------------------------------


def smallest_of(view: ImageView) -> int:
    """The least memory that a wrapped network takes."""
    with pytest.raises(UserError, match="device_memory=1 is too small") as refused:
        StreamedView(view, "cpu", 1, batch=2, length=2)
    found = re.search(r"smallest that works is (\d+)", str(refused.value))
    assert found
    return int(found[1])


def drawn_weights(width: LiveWidth, kept: int, draw: torch.Generator) -> LevelWeights:
    """Weights of a level, for a width and those behind it, and statistics where norms read them."""
    weights: LevelWeights | None = None
    for link in reversed(width.links):
        rows = kept if link.behind else len(link.consumer_weight)
        matrix_OK = torch.randn(rows, link.consumer_weight.shape[1] // link.width.groups * kept, generator=draw)
        norm = torch.rand(2, rows, generator=draw) + 0.5 if link.norm else None
        weights = LevelWeights(reading.laid_out(link, matrix_OK).contiguous(), norm, weights)
    assert weights is not None
    return weights


@pytest.mark.parametrize("name", ["resnet-bottleneck", "vit", "mobilenet-v2", "traced-mobile"])
def test_a_network_that_reads_images_is_the_same_bit_for_bit(name: str) -> None:
    plain, inner = image_families.view_of(name), image_families.view_of(name)
    numbers, memory = torch.arange(4).view(2, 2), smallest_of(inner)
    wrapped = StreamedView(inner, "cpu", memory, batch=2, length=2)
    for seed in range(3):
        for ours, theirs in zip(
            (w for row in wrapped.widths for w in row), (w for row in plain.widths for w in row), strict=True
        ):
            draw = torch.Generator().manual_seed(seed)
            kept = int(torch.randint(int(not ours.width.droppable), ours.width.groups, (), generator=draw))
            weights = drawn_weights(ours, kept, draw) if kept else LevelWeights()
            ours.keep(kept, weights)
            theirs.keep(kept, weights)
        expected = plain.embed(numbers)
        for block in range(len(plain.blocks)):
            expected = plain.run(block, expected)
        for _ in range(2):  # blocks come and go, and what is kept of them stays
            assert torch.equal(wrapped(numbers), plain.head(expected))
    assert wrapped.streamer.peak_bytes <= memory
    wrapped.rest()
    for back, before in zip(wrapped.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(back, before)


def test_a_copy_of_a_wrapped_network_brings_nothing() -> None:
    inner = image_families.view_of("vit")
    wrapped = StreamedView(inner, "cpu", smallest_of(inner), batch=2, length=2)
    pixels = inner.pixels(torch.arange(2))
    expected, sent = wrapped.model(pixels).logits, wrapped.streamer.sent_bytes
    assert sent > 0
    twin: Any = wrapped.copied({})
    assert torch.equal(twin(pixels).logits, expected)
    assert wrapped.streamer.sent_bytes == sent
