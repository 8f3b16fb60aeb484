"""Pruned directories: the cache, what is refused, what survives a failure, and how they are measured."""

import errno
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from autoprune.assembly import Assembly
from autoprune.data.text import read_texts
from autoprune.errors import UserError
from autoprune.exporters import huggingface, padding
from autoprune.exporting import export_policy
from autoprune.networks.slots import cache_slots, can_cache
from autoprune.policy import Policy
from autoprune.provenance import make_policy
from autoprune.space import Levels
from autoprune.tasks.text_directory import evaluate_directory
from autoprune.testing.toys import counts
from autoprune.validation import total_params
from tests import families
from tests.contracts.test_exporters import Loader, awkward_levels, export, is_exact, placed_logits, tiny_assembly

TOKENS = families.random_tokens(2, 13)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, text_file: str) -> Assembly:
    return tiny_assembly("llama", tmp_path_factory.mktemp("llama"), text_file, mlp_group=4)


def policy_of(assembly: Assembly, levels: Levels | None = None) -> Policy:
    return make_policy(assembly, awkward_levels(assembly) if levels is None else levels, {})


def without(assembly: Assembly, kind: str, blocks: set[int]) -> Levels:
    """Dense but for one kind of unit in some blocks."""
    return tuple(len(u.levels) - 1 if u.kind == kind and u.block in blocks else 0 for u in assembly.space.units)


# -- the cache -------------------------------------------------------------------------------------------------


def test_slots_go_to_layers_that_attend_first() -> None:
    s, f = "sliding_attention", "full_attention"
    assert cache_slots([True, True, True], [f, f, f]) == [0, 1, 2]
    assert cache_slots([False, True, False, True], [f, f, f, f]) == [2, 0, 3, 1]
    assert cache_slots([False, False, True, True], [s, f, s, f]) == [2, 3, 0, 1]
    assert can_cache([False, False, True, False], [s, f, s, f])
    assert not can_cache([False, True, False, True], [s, f, s, f])
    assert not can_cache([False, False], [f, f])


def test_generation_without_attention_in_the_first_type_or_at_all(tmp_path: Path, text_file: str) -> None:
    gemma = tiny_assembly("gemma2", tmp_path / "gemma2", text_file)
    sliding = export(gemma, without(gemma, "attention", {0, 2, 4}), tmp_path / "sliding")
    full = export(gemma, without(gemma, "attention", {1, 3, 5}), tmp_path / "full")
    none = export(gemma, without(gemma, "attention", set(range(families.LAYERS))), tmp_path / "none")
    nothing = export(gemma, gemma.space.sparsest, tmp_path / "nothing")
    with closing(Loader("before")) as loader:
        found = {path.name: loader.check(path) for path in (sliding, full, none, nothing)}
    uses = {name: result["use_cache"] for name, result in found.items()}
    assert uses == {"sliding": False, "full": True, "none": False, "nothing": False}
    for result in found.values():
        is_exact(result)


# -- what is written -------------------------------------------------------------------------------------------


def test_the_configuration_says_what_is_left(llama: Assembly, tmp_path: Path) -> None:
    path = export_policy(llama, policy_of(llama), tmp_path / "out", "hf")
    config = json.loads((path / "config.json").read_text())
    assert (config["model_type"], config["base_model_type"]) == ("autoprune", "llama")
    assert (config["num_hidden_layers"], config["num_attention_heads"]) == (families.LAYERS - 1, 4)
    layers = config["per_layer_config"]
    assert layers["0"] == {
        "num_attention_heads": 0, "num_key_value_heads": 0, "intermediate_size": 32, "skip": ["attention"],
    }  # fmt: skip
    assert layers["1"]["skip"] == ["mlp"]
    assert layers["3"] == {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16}
    assert layers["4"] == {"num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 48}
    assert Policy.load(path / "policy.json").units == policy_of(llama).units
    assert {"tokenizer.json", "generation_config.json"} <= {file.name for file in path.iterdir()}


def test_the_live_network_is_as_before(llama: Assembly, tmp_path: Path) -> None:
    levels = awkward_levels(llama)
    evaluator = llama.evaluator(llama.splits.search, "kl")
    dense = placed_logits(llama, llama.space.dense, TOKENS)
    before = evaluator.score([llama.space.dense, levels], [0, 1])
    for uniform in (False, True, False):
        export_policy(llama, policy_of(llama), tmp_path / "out", "hf", uniform=uniform)
        assert torch.equal(llama.loaded.model(input_ids=TOKENS).logits, dense)
        assert (evaluator.score([llama.space.dense, levels], [0, 1]) == before).all()


def test_weights_have_the_checkpoints_dtype_and_tied_ones_are_one(tmp_path: Path, text_file: str) -> None:
    assembly = tiny_assembly("llama-biases", tmp_path / "dense", text_file, torch.bfloat16)
    levels = awkward_levels(assembly)
    expected = placed_logits(assembly, levels, TOKENS)
    for uniform in (False, True):
        path = export_policy(assembly, policy_of(assembly), tmp_path / "out", "hf", uniform=uniform)
        weights = load_file(path / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
        assert "lm_head.weight" not in weights
        again = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        assert torch.allclose(again(input_ids=TOKENS).logits, expected, atol=1e-5)


def test_generation_settings_are_kept_even_odd_ones(llama: Assembly, tmp_path: Path) -> None:
    settings: Any = llama.loaded.model.generation_config
    settings.temperature = 0.3  # with do_sample unset, transformers loads it and refuses to save it
    path = export_policy(llama, policy_of(llama), tmp_path / "out", "hf")
    settings.temperature = None
    assert json.loads((path / "generation_config.json").read_text())["temperature"] == 0.3


# -- what is refused -------------------------------------------------------------------------------------------


def test_only_exports_are_replaced(llama: Assembly, tmp_path: Path) -> None:
    policy = policy_of(llama)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        export_policy(llama, policy, tmp_path / "file", "hf")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        export_policy(llama, policy, tmp_path / "full", "hf")
    (tmp_path / "empty").mkdir()
    export_policy(llama, policy, tmp_path / "empty", "hf")
    (tmp_path / "empty" / "left over").write_text("")
    export_policy(llama, policy, tmp_path / "empty", "hf")
    assert not (tmp_path / "empty" / "left over").exists()


def test_a_full_disk_leaves_the_earlier_export(
    llama: Assembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export_policy(llama, policy_of(llama), tmp_path / "out", "hf")
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface, "_save_generation_config", full)
    with pytest.raises(UserError, match="No space left"):
        export_policy(llama, policy_of(llama, llama.space.dense), path, "hf")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_shape_that_no_stock_model_has(llama: Assembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padding, "_fits", lambda *_: False)
    with pytest.raises(UserError, match="without uniform"):
        export_policy(llama, policy_of(llama), tmp_path / "out", "hf", uniform=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:the export saves nothing")
@pytest.mark.parametrize(
    ("name", "expected_heads"),
    [
        ("llama", {6: 6, 5: 6, 4: 4, 3: 3}),  # 5 do not divide 48
        ("granite", {6: 6, 5: 5, 4: 4, 3: 3}),  # has no head_dim of its own
        ("gpt2", {6: 6, 5: 6, 4: 6, 3: 6}),  # heads times head_dim is the hidden size
    ],
)
def test_padding_takes_the_fewest_heads_that_the_class_can_have(
    name: str, expected_heads: dict[int, int], tmp_path: Path, text_file: str
) -> None:
    shape = {"hidden_size": 48, "num_attention_heads": 6}
    if name != "gpt2":
        shape["num_key_value_heads"] = 6
    assembly = tiny_assembly(name, tmp_path / "dense", text_file, shape=shape, levels=[1.0, 5 / 6, 4 / 6, 3 / 6])
    heads = {}
    for level, kept in enumerate(counts(assembly.space.units[0])):
        levels = (level, 0) * families.LAYERS
        path = export_policy(assembly, policy_of(assembly, levels), tmp_path / "out", "hf", uniform=True)
        heads[kept] = AutoConfig.from_pretrained(path).num_attention_heads
        expected = placed_logits(assembly, levels, TOKENS)
        loaded = AutoModelForCausalLM.from_pretrained(path)
        assert torch.allclose(loaded(input_ids=TOKENS).logits, expected, atol=1e-4)
    assert heads == expected_heads


@pytest.mark.parametrize("uniform", [False, True])
def test_a_network_of_which_every_unit_is_dropped(llama: Assembly, tmp_path: Path, uniform: bool) -> None:
    levels = tuple(len(unit.levels) - 1 for unit in llama.space.units)
    path = export_policy(llama, policy_of(llama, levels), tmp_path / "out", "hf", uniform=uniform)
    loaded = AutoModelForCausalLM.from_pretrained(path)
    assert torch.allclose(loaded(input_ids=TOKENS).logits, placed_logits(llama, levels, TOKENS), atol=1e-4)
    assert loaded.generate(TOKENS[:1], max_new_tokens=3, min_new_tokens=3).shape[1] == TOKENS.shape[1] + 3


@pytest.mark.parametrize("kind", ["attention", "mlp"])
def test_the_stock_class_refuses_a_directory_whose_layers_only_skip(llama: Assembly, tmp_path: Path, kind: str) -> None:
    path = export_policy(llama, policy_of(llama, without(llama, kind, {1})), tmp_path / "out", "hf")
    with pytest.raises(RuntimeError, match="per-layer attribute"):
        LlamaForCausalLM.from_pretrained(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model_type": None}, "base_model_type"),
        ({"base_model_type": "rwkv"}, "'rwkv' are not supported"),
        ({"per_layer_config": {}}, "describes 0 layers, and the model has 5"),
        ({"per_layer_config": {str(i): {"intermediate_size": 47.5} for i in range(5)}}, "layer 0 does not fit its mlp"),
        ({"per_layer_config": {str(i): {"num_attention_heads": 2} for i in range(5)}}, "does not fit its attention"),
    ],
)
def test_a_configuration_that_does_not_fit(
    llama: Assembly, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = export_policy(llama, policy_of(llama), tmp_path / "out", "hf")
    config = json.loads((path / "config.json").read_text()) | change
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises((ValueError, UserError), match=message):
        AutoModelForCausalLM.from_pretrained(path)


# -- how they are measured -------------------------------------------------------------------------------------


def test_a_directory_has_the_loss_that_the_search_saw(llama: Assembly, tmp_path: Path, text_file: str) -> None:
    length = llama.config.sequence_length
    pruned = export_policy(llama, policy_of(llama), tmp_path / "pruned", "hf")
    uniform = export_policy(llama, policy_of(llama), tmp_path / "uniform", "hf", uniform=True)
    reports = {p: evaluate_directory(Path(p), text_file, length, 5) for p in (llama.loaded.path, pruned, uniform)}
    dense = reports.pop(llama.loaded.path)

    tokens_NT = read_texts(text_file).tokens(llama.loaded.tokenizer, length)[:5]
    levels = [llama.space.dense, awkward_levels(llama)]
    expected = llama.evaluator(tokens_NT, "ce").score(levels, range(5)).mean(axis=1)
    assert dense["cross_entropy"] == pytest.approx(expected[0], rel=1e-6)
    for report in reports.values():
        assert report["cross_entropy"] == pytest.approx(expected[1], rel=1e-6)
        assert report["tokens"] == 5 * length
    assert reports[pruned]["params"] == total_params(llama, levels[1]) < dense["params"]
    assert reports[pruned]["bytes"] < reports[uniform]["bytes"] < dense["bytes"]


@pytest.mark.parametrize(
    ("path", "length", "message"),
    [("nowhere", 16, "no model directory"), ("dense", 65, "beyond the model's 64"), ("dense", 64, "shorter than one")],
)
def test_what_cannot_be_measured(llama: Assembly, tmp_path: Path, path: str, length: int, message: str) -> None:
    text = tmp_path / "short.txt"
    text.write_text("ten bytes.")
    directory = Path(llama.loaded.path) if path == "dense" else tmp_path / path
    with pytest.raises(UserError, match=message):
        evaluate_directory(directory, str(text), length, None)
