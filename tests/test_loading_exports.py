"""How a native export is loaded: by every auto class of the dense network, from pickles, and what its card says."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig, pipeline

from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.exporting import export_policy
from autoprune.networks.checks import check_config, check_weights, dequantising
from autoprune.networks.loading import load_model
from autoprune.networks.slots import sharing_modes
from autoprune.provenance import make_policy
from autoprune.space import Levels
from tests import families
from tests.contracts.test_exporters import awkward_levels, tiny_assembly

TOKENS = families.random_tokens(2, 13)
UNPICKLED = """
import sys
import torch

found = torch.load(sys.argv[1], weights_only=False)
again = found["model"](found["tokens"]).logits
assert torch.equal(again, found["logits"])
assert type(found["config"]) is type(found["model"].config)
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, text_file: str) -> Assembly:
    return tiny_assembly("llama", tmp_path_factory.mktemp("llama"), text_file)


@pytest.fixture(scope="module")
def exported(llama: Assembly, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(llama, awkward_levels(llama), tmp_path_factory.mktemp("exported") / "pruned")


def written(assembly: Assembly, levels: Levels, path: Path, **options: Any) -> Path:
    policy = make_policy(assembly, levels, {"validation": {"dense": {"loss": 0.0}, "best": {"loss": 0.25}}})
    return export_policy(assembly, policy, path, "hf", **options)


# -- classes -----------------------------------------------------------------------------------------------------


def test_a_pickle_is_loaded_by_a_process_that_has_seen_no_pruned_network(exported: Path, tmp_path: Path) -> None:
    """As spawned workers, joblib and `torch.save` of a whole model do."""
    model = AutoModelForCausalLM.from_pretrained(exported)
    assert type(copy.deepcopy(model)) is type(model)
    logits = model(TOKENS).logits.detach()
    torch.save({"config": model.config, "model": model, "tokens": TOKENS, "logits": logits}, tmp_path / "whole.pt")
    command = [sys.executable, "-c", UNPICKLED, str(tmp_path / "whole.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_head_is_put_on_trained_and_loaded_again(exported: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(exported, num_labels=3)
    body = AutoModelForCausalLM.from_pretrained(exported).model
    torch.testing.assert_close(model.model(TOKENS)[0], body(TOKENS)[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model(TOKENS, labels=torch.tensor([0, 2])).loss
    before.backward()
    optimizer.step()
    after = model(TOKENS, labels=torch.tensor([0, 2])).loss
    assert after < before
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(again(TOKENS).logits, model(TOKENS).logits)


def test_a_pipeline_knows_it(exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = pipeline("text-generation", model=str(exported), device="cpu")
    (answer,) = told("the network", max_new_tokens=4, do_sample=False)
    assert answer["generated_text"].startswith("the network")
    assert "not supported" not in "".join(capfd.readouterr())


def test_continuous_batching_is_refused_where_its_pages_do_not_fit(
    llama: Assembly, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"pages for 2 KV heads in every layer, .* keep 1, 2: use `generate`"):
        AutoModelForCausalLM.from_pretrained(exported).generate_batch(
            inputs=[[1, 2, 3]], generation_config=GenerationConfig(max_new_tokens=2)
        )
    levels = tuple(len(u.levels) - 1 if u.name in ("0.attention", "1.mlp") else 0 for u in llama.space.units)
    whole = AutoModelForCausalLM.from_pretrained(written(llama, levels, tmp_path / "skips"))
    asked: list[Any] = []
    monkeypatch.setattr(
        "transformers.generation.continuous_batching.continuous_api.ContinuousMixin.init_continuous_batching",
        lambda self, **given: asked.append(given),
    )
    whole.init_continuous_batching(generation_config=None)  # attention that is gone needs no pages
    assert asked == [{"generation_config": None}]


def test_slots_that_nobody_writes_hold_nothing() -> None:
    s, f = "sliding_attention", "full_attention"
    assert sharing_modes([False, True, False, True], [f, f, f, f]) == [None, None, "reuse", "reuse"]
    assert sharing_modes([True, True, False, True], [s, f, s, f]) == [None, None, "reuse", None]


# -- what an export says -----------------------------------------------------------------------------------------


def test_an_export_says_how_it_is_loaded(llama: Assembly, tmp_path: Path) -> None:
    card = Path(llama.loaded.path) / "README.md"
    card.write_text("---\nlicense: apache-2.0\nlanguage: [en]\ntags: [dense]\n---\n# Something\n")
    path = written(llama, awkward_levels(llama), tmp_path / "out")
    told = (path / "README.md").read_text()
    for part in (
        "license: apache-2.0", "import autoprune", "lm_eval", "--uniform", "`LlamaForCausalLM`",
        f"{llama.loaded.n_params:,} in the dense network", "| params, what can be pruned |", "| best | 0.2500 |",
        "| agent | `evolution` |", "loss (kl)", "library_name: transformers",
    ):  # fmt: skip
        assert part in told
    assert "dense]" not in told
    assert str(tmp_path) not in told
    assert "import autoprune" in json.loads((path / "config.json").read_text())["how_to_load"]
    card.write_text("---\n: {\n---\n")  # a damaged card is no reason to fail
    uniform = (written(llama, awkward_levels(llama), tmp_path / "out", uniform=True) / "README.md").read_text()
    assert "import autoprune" not in uniform
    assert "license:" not in uniform


def test_whoever_reads_any_file_of_an_export_reads_its_weights(exported: Path) -> None:
    """safetensors gives what it writes to its owner alone."""
    modes = {file.name: file.stat().st_mode & 0o777 for file in exported.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]
    assert len(set(modes.values())) == 1


# -- what is no network to search on -----------------------------------------------------------------------------

QUANTISED = [
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bit", "dequantize()"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bit", "dequantize()"),
    ({"quant_method": "gptq", "bits": 4}, "gptq, 4 bit", "made from"),
    ({"quant_method": "awq", "bits": 4}, "awq, 4 bit", "made from"),
    *(
        ({"quant_method": method}, method, "made from")
        for method in ("torchao", "compressed-tensors", "hqq", "quanto", "aqlm", "mxfp4", "fbgemm_fp8", "invented")
    ),
    ({"weights": "packed"}, "an unnamed method", "made from"),
]


@pytest.mark.parametrize(("entry", "method", "way"), QUANTISED, ids=[row[1] for row in QUANTISED])
def test_quantised_checkpoints_are_refused(entry: dict[str, Any], method: str, way: str, tmp_path: Path) -> None:
    path = with_entry(tmp_path, quantization_config=entry)
    with pytest.raises(UserError) as error:
        load_model(str(path))
    assert f"is quantised ({method})" in str(error.value)
    assert way in str(error.value)


def test_fp8_is_multiplied_out(tmp_path: Path) -> None:
    config = families.tiny_model("llama").config
    config.quantization_config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    options = dequantising("there", config)
    assert options["quantization_config"].dequantize


def test_entries_of_single_layers_are_refused(tmp_path: Path) -> None:
    """transformers loads the dense network, whatever they say."""
    path = with_entry(tmp_path, per_layer_config={"1": {"skip": ["mlp"]}})
    with pytest.raises(UserError, match=r"per_layer_config \(of layer 1: \{'skip': \['mlp'\]\}\).*remove that entry"):
        load_model(str(path))
    check_config("there", families.tiny_model("gpt2").config)


def test_an_export_carries_no_entries_of_single_layers(tmp_path: Path, text_file: str) -> None:
    settings = {"sequence_length": 16, "reconstruction_sequences": 8, "search_sequences": 2, "validation_sequences": 2}
    path = with_entry(tmp_path, per_layer_config={})
    assembly = assemble(load_config(None, {"model": str(path), "data": text_file, **settings}))
    uniform = written(assembly, assembly.space.uniform(), tmp_path / "out", uniform=True)
    assert "per_layer_config" not in json.loads((uniform / "config.json").read_text())


def with_entry(folder: Path, **entry: Any) -> Path:
    """A Llama's directory with something more in its configuration."""
    path = families.save_tiny("llama", folder / "dense")
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entry))
    return path


def test_weights_of_another_network_are_refused() -> None:
    """As scales of a quantised one whose configuration does not say so, or biases that the class does not have."""
    model = families.tiny_model("llama")
    fine = {"missing_keys": set(), "unexpected_keys": {"model.layers.0.self_attn.rotary_emb.inv_freq"}}
    check_weights("there", model, fine)
    for key in ("model.layers.0.mlp.down_proj.SCB", "model.layers.1.self_attn.q_proj.bias"):
        with pytest.raises(UserError, match=key):
            check_weights("there", model, {"missing_keys": set(), "unexpected_keys": {key}})
    with pytest.raises(UserError, match=r"lacks 1 weights .* lm_head\.weight"):
        check_weights("there", model, {"missing_keys": {"lm_head.weight"}, "unexpected_keys": set()})


# -- widths of nothing -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.filterwarnings("ignore:the export saves nothing")
@pytest.mark.parametrize("name", ["llama", "opt", "gemma2", "stablelm-parallel"])
def test_an_mlp_of_no_neurons_is_no_unit(name: str, tmp_path: Path, text_file: str) -> None:
    width = {"ffn_dim": 0} if name == "opt" else {"intermediate_size": 0}
    assembly = tiny_assembly(name, tmp_path / "dense", text_file, shape=width)
    assert {unit.kind for unit in assembly.space.units} == {"attention"}
    levels = tuple(1 if unit.block % 2 else len(unit.levels) - 1 for unit in assembly.space.units)
    assembly.placer.place(levels)
    expected = assembly.loaded.model(input_ids=TOKENS).logits
    assembly.placer.release()
    for uniform in (False, True):
        path = written(assembly, levels, tmp_path / "out", uniform=uniform)
        torch.testing.assert_close(AutoModelForCausalLM.from_pretrained(path)(TOKENS).logits, expected)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_gpt2_that_transformers_cannot_run(tmp_path: Path, text_file: str) -> None:
    with pytest.raises(UserError, match="n_inner is 0"):
        tiny_assembly("gpt2", tmp_path / "dense", text_file, shape={"n_inner": 0})
