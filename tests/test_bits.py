"""The form bits: levels in place, in the store, in the costs, and what is exported."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import autoprune
from autoprune import exporting
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.cutting.matrices import matrices_of
from autoprune.errors import UserError
from autoprune.exporters.compressed_tensors import quantization_config
from autoprune.level import Level, form_of
from autoprune.levels.bits import Bits
from autoprune.levels.quantising.storage import BITS
from autoprune.levels.quantising.unit import Latest, columns_of, rounded_of
from autoprune.provenance import make_policy
from autoprune.recovery.cutting_out import cut_out
from autoprune.space import Levels
from autoprune.training.frozen import stays
from autoprune.training.loop import train
from autoprune.training.settings import settings_of
from autoprune.training.step import make_trainable
from autoprune.workers.bundle import open_bundle, write_bundle

MEMORY = {"budgets": {"memory": 0.25}}


def assembled(quick: dict[str, Any], forms: str, **settings: Any) -> Assembly:
    return assemble(load_config(overrides=quick | MEMORY | {"forms": forms} | settings))


@pytest.fixture(scope="module")
def mixed(quick: dict[str, Any]) -> Assembly:
    """A network whose units lose groups and bits."""
    return assembled(quick, "groups,bits")


def some_policy(assembly: Assembly) -> Levels:
    """A policy with fewer groups in few bits, all groups in few bits, a dropped unit and a head in few bits."""
    numbers = []
    for u, unit in enumerate(assembly.space.units):
        fewer = [n for n, level in enumerate(unit.levels) if level.form == "bits" and level.kept < unit.groups]
        few = [n for n, level in enumerate(unit.levels) if level.form == "bits"]
        numbers.append(len(unit.levels) - 1 if u == 5 else (fewer or few)[-1] if u % 2 else few[u // 2 % len(few)])
    return tuple(numbers)


# -- the levels --------------------------------------------------------------------------------------------------


def test_levels_are_bits_and_with_groups_fewer_groups_too(quick: dict[str, Any]) -> None:
    alone = assembled(quick, "bits:8/4/3").space
    groups = alone.units[0].groups
    assert [level.name for level in alone.units[0].levels] == [
        f"groups:{groups}", *(f"bits:{groups},bits={bits}" for bits in (8, 4, 3))
    ]  # fmt: skip
    assert [level.name for level in alone.units[-1].levels] == ["groups:1", *(f"bits:1,bits={b}" for b in (8, 4, 3))]
    assert alone.units[-1].name == "4.head" or alone.units[-1].kind in ("embedding", "head")
    both = assembled(quick, "groups,bits").space
    kept = {(level.kept, level.form) for level in both.units[1].levels}
    assert (0, "groups") in kept
    assert any(form == "bits" and 0 < number < 96 for number, form in kept)
    for unit in both.units:
        densities = [level.density for level in unit.levels]
        assert densities == sorted(densities, reverse=True)


def test_ends_are_units_only_where_storage_is_bounded(quick: dict[str, Any]) -> None:
    kinds = {unit.kind for unit in assembled(quick, "groups,bits", budgets={"params": 0.5}).space.units}
    assert kinds == {"attention", "mlp"}
    assert {unit.kind for unit in assembled(quick, "groups").space.units} == {"attention", "mlp"}


def test_no_level_that_stays_is_dominated(mixed: Assembly) -> None:
    itemsize = mixed.loaded.checkpoint_dtype.itemsize
    for unit, known in zip(mixed.space.units, mixed.store.statistics, strict=True):
        sizes = [form_of(level).nbytes(unit, level, itemsize) for level in unit.levels]
        assert sizes == sorted(sizes, reverse=True)
        kept = {level.option("bits") for level in unit.levels if level.form == "bits" and level.kept == unit.groups}
        assert kept == set(BITS), "more forms take nothing from bits alone"
        for level, size, error in zip(unit.levels, sizes, known.output_errors, strict=True):
            if level.form == "bits" and level.kept < unit.groups:
                better = [e for other, s, e in zip(unit.levels, sizes, known.output_errors, strict=True)
                          if s <= size and other is not level]  # fmt: skip
                assert error < min(better, default=2.0)
        assert unit.levels[0] == Level.of_groups(unit.groups, unit.groups)


# -- in place ----------------------------------------------------------------------------------------------------


def test_levels_in_place_are_the_weights_of_the_store(mixed: Assembly) -> None:
    policy = some_policy(mixed)
    widths = [*(width for row in mixed.view.widths for width in row), *mixed.view.ends]
    mixed.placer.place(policy)
    for u, (unit, width) in enumerate(zip(mixed.space.units, widths, strict=True)):
        level, own = unit.levels[policy[u]], mixed.store.own(u, policy[u])
        if level.form != "bits":
            continue
        for i, matrix in enumerate(matrices_of(width) or ()):
            found = rounded_of(level, own, i, columns_of(level, width, matrix)).weights()
            live = matrix.layout.matrix(width.dense.live(matrix.cut.key).data)
            assert live.shape == unit.sizes(level.kept)[i]
            assert torch.equal(live, found[: len(live)])
            assert len(torch.unique(live[0])) <= 2 ** int(level.option("bits")) * len(own[f"scales{i}"][0])
    mixed.placer.release()


def test_the_dense_network_comes_back(mixed: Assembly) -> None:
    tokens = mixed.splits.search[:2]
    before = mixed.view(tokens)
    mixed.placer.place(some_policy(mixed))
    assert not torch.equal(mixed.view(tokens), before)
    mixed.placer.release()
    assert torch.equal(mixed.view(tokens), before)


@pytest.mark.parametrize("loss", ["kl", "ce"])
def test_a_policy_scores_as_the_whole_network_in_place(mixed: Assembly, loss: str) -> None:
    """Also where embeddings and head have few bits, of which scalar products are computed beforehand."""
    evaluator = mixed.evaluator(mixed.splits.search, loss)
    policies = [some_policy(mixed), mixed.space.dense, (*mixed.space.dense[:-1], 5), mixed.space.uniform()]
    scored = evaluator.score(policies, range(3))
    again = evaluator.score(policies[::-1], range(3))[::-1]
    np.testing.assert_allclose(scored, again, rtol=1e-6, atol=1e-9)
    tokens = mixed.splits.search[:3]
    mixed.placer.release()
    dense = mixed.view(tokens).double().log_softmax(-1)
    for policy, row in zip(policies, scored, strict=True):
        mixed.placer.place(policy)
        pruned = mixed.view(tokens).double().log_softmax(-1)
        if loss == "kl":
            by_hand = (dense.exp() * (dense - pruned)).sum(-1).mean(-1)
        else:
            by_hand = -pruned[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1).mean(-1)
        np.testing.assert_allclose(row, by_hand.numpy(), rtol=1e-4, atol=2e-6)
    mixed.placer.release()


def test_fewer_bits_score_worse(mixed: Assembly) -> None:
    numbers = [n for n, level in enumerate(mixed.space.units[-1].levels) if level.form == "bits"]
    rest = mixed.space.dense[:-1]
    losses = mixed.evaluator(mixed.splits.search, "kl").score([(*rest, n) for n in numbers], range(4)).mean(1)
    assert list(losses) == sorted(losses)
    assert losses[0] > 0


def test_latest_weights_are_remembered_up_to_a_limit() -> None:
    latest, codes = Latest(100), [torch.zeros(1) for _ in range(3)]
    for code in codes:
        latest.put(code, torch.zeros(10))
    assert [latest.get(code) is not None for code in codes] == [False, True, True]


def test_workers_score_the_same_levels(mixed: Assembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    policies = [some_policy(mixed), mixed.space.uniform()]
    wanted = mixed.evaluator(mixed.splits.search, "kl").score(policies, range(2))
    bundle = write_bundle(mixed, "here", 1)
    np.testing.assert_allclose(open_bundle(bundle, "here").score(policies, range(2)), wanted, rtol=1e-5, atol=1e-8)


# -- costs -------------------------------------------------------------------------------------------------------


def test_memory_of_the_dense_network_is_that_of_its_file(mixed: Assembly, tiny_model: str) -> None:
    stored = load_file(Path(tiny_model) / "model.safetensors")
    assert mixed.space.cost(mixed.space.dense, "memory") == sum(t.numel() * t.element_size() for t in stored.values())
    assert mixed.measure("memory") == "B"
    assert mixed.of("memory") == "model"


def test_the_cache_is_counted_in_bytes_for_a_token(quick: dict[str, Any]) -> None:
    assembly = assembled(quick, "groups", budgets={"kv_cache": 0.5})
    config: Any = assembly.loaded.model.config
    entries = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert assembly.space.cost(assembly.space.dense, "kv_cache") == 4 * entries
    found = assembly.space.uniform()
    assert assembly.space.cost(found, "kv_cache") <= 2 * entries
    assert assembly.measure("kv_cache") == "B/token"


def test_only_networks_with_a_cache_have_such_a_budget() -> None:
    with pytest.raises(UserError, match="no unit of this network has one"):
        assemble(load_config(overrides={"model": "tiny-cnn", "data": "digits", "budgets": {"kv_cache": 0.5}}))


# -- searches and exports ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(quick: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search over groups and symmetric bits."""
    run = tmp_path_factory.mktemp("runs") / "bits"
    autoprune.search(out=run, forms="groups,bits:8/4/3/symmetric", **quick | MEMORY | {"max_evals": 20})
    return run


def test_a_search_keeps_its_budget_and_is_reopened(found: Path) -> None:
    assembly, policy = exporting.reopen(found)
    assert policy.costs["memory"].policy <= 0.25 * policy.costs["memory"].dense
    assert {unit.form for unit in policy.units} >= {"bits"}
    levels = tuple(unit.level for unit in policy.units if unit.level is not None)
    assert assembly.space.levels_of(levels) == [unit.as_level for unit in policy.units]


def test_a_level_exported_is_the_level_placed(mixed: Assembly, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    policy, tokens = some_policy(mixed), mixed.splits.search[:2]
    mixed.placer.place(policy)
    placed = mixed.view(tokens)
    mixed.placer.release()
    with pytest.warns(UserWarning, match="multiplied out"):
        exporting.export_policy(mixed, make_policy(mixed, policy, {}), tmp_path / "network", "hf")
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "network")(tokens).logits
    torch.testing.assert_close(loaded, placed, rtol=1e-4, atol=1e-4)


def test_packed_exports_are_loaded_by_transformers_and_as_large_as_memory_says(found: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    pytest.importorskip("compressed_tensors")
    assembly, policy = exporting.reopen(found)
    with pytest.warns(UserWarning, match=r"no packed embeddings: .* MB more than the policy's memory"):
        exporting.export_policy(assembly, policy, tmp_path / "packed", "compressed-tensors")
    with pytest.warns(UserWarning, match="multiplied out"):
        exporting.export_policy(assembly, policy, tmp_path / "plain", "hf")
    tokens = assembly.splits.search[:2]
    with torch.no_grad():
        packed, plain = (
            AutoModelForCausalLM.from_pretrained(tmp_path / name)(tokens).logits for name in ("packed", "plain")
        )
    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-4)
    stored = load_file(tmp_path / "packed" / "model.safetensors")
    (u,) = [u for u, unit in enumerate(policy.units) if unit.kind == "embedding"]
    embedding = assembly.space.units[u]
    packed_bytes = form_of(policy.units[u].as_level).nbytes(embedding, policy.units[u].as_level, 4)
    in_file = sum(t.numel() * t.element_size() for t in stored.values())
    assert in_file - 4 * embedding.fixed_params + packed_bytes == policy.costs["memory"].policy


LOADED = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert "autoprune" not in sys.modules
with torch.no_grad():
    torch.save(model(torch.load(sys.argv[2])).logits, sys.argv[3])
"""


@pytest.mark.slow
def test_a_process_without_autoprune_loads_a_packed_network(quick: dict[str, Any], tmp_path: Path) -> None:
    """Where no group was removed, it is a stock model."""
    pytest.importorskip("compressed_tensors")
    assembly = assembled(quick, "bits:8/4/symmetric")
    policy, tokens = tuple(min(2, len(unit.levels) - 1) for unit in assembly.space.units), assembly.splits.search[:2]
    policy = (*policy[:-2], 0, policy[-1])  # no packed embedding
    exporting.export_policy(assembly, make_policy(assembly, policy, {}), tmp_path / "packed", "compressed-tensors")
    torch.save(tokens, tmp_path / "tokens")
    script = [sys.executable, "-c", LOADED, *(str(tmp_path / name) for name in ("packed", "tokens", "logits"))]
    subprocess.run(script, check=True, capture_output=True, cwd=tmp_path)
    assembly.placer.place(policy)
    torch.testing.assert_close(torch.load(tmp_path / "logits"), assembly.view(tokens), rtol=1e-4, atol=1e-4)


def test_grids_without_symmetry_are_not_packed(mixed: Assembly, tmp_path: Path) -> None:
    policy = make_policy(mixed, some_policy(mixed), {})
    with pytest.raises(UserError, match=r"symmetric"):
        exporting.export_policy(mixed, policy, tmp_path / "packed", "compressed-tensors")
    assert not (tmp_path / "packed").exists()


def test_only_policies_with_bits_are_packed(quick: dict[str, Any], found: Path, tmp_path: Path) -> None:
    assembly, _ = exporting.reopen(found)
    dense = make_policy(assembly, assembly.space.dense, {})
    with pytest.raises(UserError, match="every unit of this policy has its dense weights"):
        exporting.export_policy(assembly, dense, tmp_path / "packed", "compressed-tensors")
    groups = assembled(quick, "groups", budgets={"params": 0.5})
    policy = make_policy(groups, groups.space.uniform(), {})
    with pytest.raises(UserError, match="no level of this run has few bits"):
        exporting.export_policy(groups, policy, tmp_path / "packed", "compressed-tensors")


def test_the_configuration_of_a_packed_network_names_every_matrix_once() -> None:
    from autoprune.exporters.compressed_tensors import Packed

    packed = [Packed("a", {}, (4, 128, True)), Packed("b", {}, (3, 128, True)), Packed("c", {}, (4, 128, True))]
    groups = quantization_config(packed)["config_groups"]
    assert [one["targets"] for one in groups.values()] == [["b"], ["a", "c"]]
    assert [one["weights"]["num_bits"] for one in groups.values()] == [3, 4]


# -- training ----------------------------------------------------------------------------------------------------


def test_weights_of_few_bits_stay_while_a_network_is_trained(found: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(found, run)
    with pytest.warns(UserWarning, match=r"weights of few bits stay as they are, \d+% of the parameters"):
        recovered = autoprune.finetune(run, max_steps=3, refit=False, lr=1e-2)
    assert recovered.trained is not None
    assembly, policy = exporting.reopen(run)
    before = cut_out(assembly, policy)
    student = cut_out(assembly, policy)
    staying = [name for name, module in student.named_modules() if stays(module)]
    assert staying
    settings = settings_of({}, {"max_steps": 3, "lr": 1e-2})
    train(student, assembly.task.training(assembly), settings, None)
    changed = {name for name, one in student.state_dict().items() if not torch.equal(one, before.state_dict()[name])}
    assert changed
    assert not changed & {f"{name}.weight" for name in staying}
    with pytest.raises(UserError, match=r"adapters could be trained for \(weights of few bits stay as they are\)"):
        make_trainable(cut_out(assembly, policy), settings_of({}, {"max_steps": 3, "lora": 4}))


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forms", "told"),
    [("bits:1", "bits=1 is not offered"), ("groups,bits:9", "bits=9"), ("bits:nf4", "no setting 'nf4'")],
)
def test_bits_that_are_not_offered(quick: dict[str, Any], forms: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        assembled(quick, forms)


def test_units_of_other_weights_have_no_bits(mixed: Assembly) -> None:
    from dataclasses import replace

    from autoprune.ports.offer import Offer

    unit = replace(mixed.space.units[0], shapes=())
    offer = Offer(unit, mixed.view.widths[0][0], mixed.view, mixed.config)
    with pytest.raises(UserError, match=r"the form bits cannot be had for the unit 0\.attention"):
        Bits().levels(offer)


def test_every_number_of_bits_is_offered() -> None:
    assert BITS == (8, 6, 5, 4, 3, 2)
