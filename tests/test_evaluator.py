"""The evaluator, the moments and the level store on a tiny real network, against plain code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from autoprune.assembly import Assembly, assemble
from autoprune.calibration.moments import collect
from autoprune.config import load_config
from autoprune.data.splits import SHARES, split
from autoprune.errors import UserError
from autoprune.files.cache import cache_directory
from autoprune.levels.store import LevelStore
from autoprune.networks.loading import load_model
from autoprune.networks.text import TextView


@pytest.fixture(scope="module")
def assembly(quick: dict[str, Any]) -> Assembly:
    return assemble(load_config(None, quick))


def logits(assembly: Assembly, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = assembly.loaded.model(input_ids=tokens, use_cache=False).logits
    return out


def test_losses_are_those_of_a_plain_forward_pass(assembly: Assembly, quick: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    policies = [assembly.space.dense, *(assembly.space.sample(rng) for _ in range(5))]
    tokens_NT = assembly.splits.search
    evaluator = assembly.evaluator(tokens_NT, "kl", "ce")
    kl_PS, ce_PS = evaluator.score_each(policies, range(len(tokens_NT)))
    dense = load_model(quick["model"]).model  # as loaded, groups in their own order
    with torch.no_grad():
        logp_BTV = dense(input_ids=tokens_NT).logits.double().log_softmax(-1)
    for p, policy in enumerate(policies):
        assembly.placer.place(policy)
        logq_BTV = logits(assembly, tokens_NT).double().log_softmax(-1)
        kl_B = (logp_BTV.exp() * (logp_BTV - logq_BTV)).sum(-1).mean(-1)
        ce_B = -logq_BTV[:, :-1].gather(-1, tokens_NT[:, 1:, None]).squeeze(-1).mean(-1)
        assert kl_PS[p] == pytest.approx(kl_B.numpy(), abs=2e-6)
        assert ce_PS[p] == pytest.approx(ce_B.numpy(), abs=2e-6)


def test_a_loss_does_not_depend_on_the_batch_it_came_in(assembly: Assembly) -> None:
    rng = np.random.default_rng(1)
    policies = list(dict.fromkeys(assembly.space.mutate(assembly.space.uniform(), rng, 2) for _ in range(12)))
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    together = evaluator.score(policies, [3, 1, 4])
    alone = np.concatenate([evaluator.score([policy], [3, 1, 4]) for policy in policies])
    assert np.array_equal(together, alone)
    assert np.array_equal(evaluator.score(policies, [1]), together[:, 1:2])


def runs_of(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks that are run from now on, in order."""
    runs: list[int] = []
    plain = assembly.view.run

    def run(block: int, hidden: torch.Tensor) -> torch.Tensor:
        runs.append(block)
        return plain(block, hidden)

    monkeypatch.setattr(assembly.view, "run", run)
    return runs


def test_shared_prefixes_run_once(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    base = assembly.space.uniform()
    last_block_differs = [(*base[:-1], level) for level in range(3)]
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    evaluator.score([assembly.space.dense], [0])  # makes the dense reference
    runs = runs_of(assembly, monkeypatch)
    evaluator.score(last_block_differs, [0])
    assert runs == [0, 1, 2, 3, 3, 3]


def test_an_offspring_starts_at_its_first_new_block(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    base = assembly.space.uniform()
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    evaluator.score([base], [0, 1])
    runs = runs_of(assembly, monkeypatch)
    offspring = (*base[:4], base[4] + 1, *base[5:])  # in block 2
    evaluator.score([offspring], [0, 1])
    assert runs == [2, 2, 3, 3]
    next_sibling = (*offspring[:6], offspring[6] + 1, *offspring[7:])  # in block 3, of the offspring
    evaluator.score([next_sibling], [1])
    assert runs[4:] == [3]


def test_moments_are_those_of_all_inputs_and_do_not_depend_on_batches(
    quick: dict[str, Any], assembly: Assembly
) -> None:
    loaded = load_model(quick["model"])
    view = TextView(loaded.model, loaded.family)
    tokens_NT = assembly.splits.reconstruction
    streamed = list(collect(view, tokens_NT, batch=3))
    seen: list[torch.Tensor] = []
    hook = view.widths[2][1].consumer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        loaded.model(input_ids=tokens_NT)
    hook.remove()
    x_ND = seen[0].reshape(-1, seen[0].shape[-1]).double()
    assert torch.allclose(streamed[2][1], x_ND.T @ x_ND / len(x_ND), rtol=1e-4, atol=1e-6)


def test_levels_are_mapped_from_the_store_not_copied(assembly: Assembly) -> None:
    assembly.placer.place(tuple(1 for _ in assembly.space.units))
    for u, width in enumerate(width for row in assembly.view.widths for width in row):
        stored = assembly.store.consumer(u, 1)
        assert stored is not None
        assert isinstance(width.consumer.weight, torch.Tensor)
        assert width.consumer.weight.data_ptr() == stored.data_ptr()
    if Path("/proc/self/maps").exists():
        assert str(assembly.store.directory) in Path("/proc/self/maps").read_text()


def test_a_store_is_built_once_and_rounded_to_the_checkpoint(assembly: Assembly, quick: dict[str, Any]) -> None:
    stores = {path: path.stat().st_mtime_ns for path in (cache_directory() / "levels").rglob("*.safetensors")}
    again = assemble(load_config(None, quick | {"agent": "random", "seed": 7}))
    assert again.store.directory == assembly.store.directory
    assert {path: path.stat().st_mtime_ns for path in (cache_directory() / "levels").rglob("*.safetensors")} == stores
    other = assemble(load_config(None, quick | {"criterion": "wanda"}))
    assert other.store.directory != assembly.store.directory
    assert set(load_file(other.store.directory / "0.mlp.safetensors")) == {"order"}


def test_a_damaged_store_says_which_folder_to_delete(assembly: Assembly, tmp_path: Path) -> None:
    for unit in assembly.space.units:
        (tmp_path / f"{unit.name}.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="delete that folder"):
        LevelStore(tmp_path, assembly.space.units)


def test_splits_never_mix_and_follow_their_seed() -> None:
    tokens_NT = torch.arange(40 * 8).view(40, 8)
    limits = {"reconstruction": 100, "search": 5, "validation": 100}
    first, again, other = split(tokens_NT, limits, 0), split(tokens_NT, limits, 0), split(tokens_NT, limits, 1)
    rows = [{tuple(row) for row in getattr(first, name).tolist()} for name in SHARES]
    assert [len(r) for r in rows] == [20, 5, 10]
    assert len(set.union(*rows)) == 35
    assert first.digest == again.digest != other.digest
