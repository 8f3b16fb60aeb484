"""Live models in Python: a model of transformers with its tokenizer or processor, and a plain module."""

import copy
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune import UserError
from autoprune.networks import pretrained
from tests.conftest import QUICK

FEW = {**QUICK, "agent": "random", "max_evals": 4}
IMAGES: dict[str, Any] = {"data": "digits", "sequence_length": 32, "levels": 5, "max_evals": 4, "agent": "random"}


class Net(nn.Module):
    """Two convolutions that nobody names, so that it is traced."""

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head, self.slope = nn.Linear(8, 10), slope

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[N, 10]`."""
        x = nn.functional.leaky_relu(self.first(x), self.slope)
        logits: Tensor = self.head(nn.functional.relu(self.second(x)).mean((2, 3)))
        return logits


@pytest.fixture
def llama(tiny_model: str) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(tiny_model)


@pytest.fixture
def tokenizer(tiny_model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def state(model: Any) -> tuple[Any, ...]:
    """Everything of a model that a search could change."""
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    configs = [copy.deepcopy(getattr(model, name).to_dict()) for name in ("config", "generation_config")]
    return weights, gradients, configs, model.training


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return one[1:] == other[1:] and all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())


def refused(**settings: Any) -> str:
    """What a search says of its settings."""
    with pytest.raises(UserError) as caught:
        autoprune.search(**settings)
    return str(caught.value)


# -- models of transformers ---------------------------------------------------------------------------------------


def test_a_live_model_is_searched_as_its_directory_is_and_stays_as_it_was(
    llama: Any, tokenizer: Any, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    llama.train()
    before = state(llama)
    own = quick | FEW
    live = autoprune.search(**own | {"model": llama}, tokenizer=tokenizer)
    assert same(before, state(llama))
    directory = autoprune.search(**own)
    assert (live.loss, live.policy.units) == (directory.loss, directory.policy.units)
    folder = Path(live.assembly.loaded.path)
    assert repr(live).startswith(f"SearchResult({Path(quick['model']).name} by random")
    changed = (folder / "model.safetensors").stat().st_mtime_ns
    again = autoprune.resume(live.path)  # the run names files: the object is not needed
    assert again.loss == live.loss
    env = autoprune.make_env(tokenizer=tokenizer, **own | {"model": llama})
    assert env.reset(seed=0)[0].shape == env.observation_space.shape
    assert (folder / "model.safetensors").stat().st_mtime_ns == changed  # written once
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"autoprune.resume\(RUN, model=..., tokenizer=...\) writes it again"):
        autoprune.resume(live.path)
    with pytest.raises(UserError, match="not the one that the run was begun with"):
        autoprune.resume(live.path, model=changed_copy(llama), tokenizer=tokenizer)
    assert autoprune.resume(live.path, model=llama, tokenizer=tokenizer).loss == live.loss
    with pytest.raises(UserError, match="leave model"):
        autoprune.resume(directory.path, model=llama, tokenizer=tokenizer)


def changed_copy(model: Any) -> Any:
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1
    return other


def test_the_checkpoints_dtype_is_that_of_the_weights(llama: Any, tokenizer: Any, tmp_path: Path) -> None:
    from autoprune.given_models import named
    from autoprune.networks.loading import load_model

    names = [named(model, tokenizer) for model in (llama, copy.deepcopy(llama).half())]
    assert names[0] != names[1]
    assert [load_model(name).checkpoint_dtype for name in names] == [torch.float32, torch.float16]


def test_tied_weights_stay_tied(tokenizer: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from autoprune.given_models import named
    from autoprune.networks.loading import load_model

    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=True,
    )  # fmt: skip
    model: Any = load_model(named(LlamaForCausalLM(config), tokenizer)).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_wrappers_are_taken_off(llama: Any, tokenizer: Any) -> None:
    from autoprune.given_models import with_model

    wrapped = [llama, torch.compile(llama), nn.DataParallel(llama)]
    names = {with_model({"model": model, "tokenizer": tokenizer})["model"] for model in wrapped}
    assert len(names) == 1


def test_a_tokenizer_may_be_a_path_or_lie_in_a_processor(llama: Any, tokenizer: Any, tiny_model: str) -> None:
    from autoprune.given_models import with_model

    forms: list[dict[str, Any]] = [
        {"tokenizer": tokenizer}, {"tokenizer": tiny_model}, {"tokenizer": Path(tiny_model)},
        {"processor": tokenizer}, {"processor": SimpleNamespace(tokenizer=tokenizer)},
    ]  # fmt: skip
    assert len({with_model({"model": llama} | form)["model"] for form in forms}) == 1


def test_paths_are_text_or_path(quick: dict[str, Any], tmp_path: Path) -> None:
    own = {**quick, **FEW, "model": Path(quick["model"]), "data": Path(quick["data"])}
    assert autoprune.search(out=tmp_path / "run", **own).path == tmp_path / "run"


def test_an_image_processor_gives_mean_and_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("images.npz", images=rng.integers(0, 256, (96, 16, 16, 3), np.uint8), labels=np.arange(96) % 4)
    torch.manual_seed(0)
    model = ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=4)
    )
    processor = ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7])
    own: dict[str, Any] = {**IMAGES, "data": "images.npz", "sequence_length": 8}
    result = autoprune.search(model=model, processor=processor, **own)
    images: Any = result.assembly.view
    assert images.images.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    exported = result.export(tmp_path / "smaller")
    assert (exported / "preprocessor_config.json").is_file()
    assert "give processor= instead" in refused(model=model, tokenizer=processor, **own)
    assert "an image processor of transformers is needed" in refused(model=model, processor=3, **own)


def one_mlp_in_two_layers(llama: Any) -> Any:
    llama.model.layers[1].mlp = llama.model.layers[0].mlp
    return llama


def headless(llama: Any) -> Any:
    return llama.model


def own_subclass(llama: Any) -> Any:
    from transformers import LlamaForCausalLM

    class MyLlama(LlamaForCausalLM):  # type: ignore[misc] # a class of transformers has no type
        pass

    return MyLlama(llama.config)


def encoder(llama: Any) -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))


def with_attribute(name: str, value: Any) -> Callable[[Any], Any]:
    def changed(llama: Any) -> Any:
        setattr(llama, name, value)
        return llama

    return changed


def packed(llama: Any) -> Any:
    weight = llama.model.layers[0].mlp.up_proj.weight
    weight.requires_grad_(False).data = torch.zeros(1, 3, dtype=torch.uint8)
    return llama


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (headless, "the model is a LlamaModel, and a search loads a LlamaForCausalLM"),
        (own_subclass, "the model is a MyLlama, and a search loads a LlamaForCausalLM"),
        (encoder, "BertModel, which is neither a causal language model nor a classifier"),
        (with_attribute("peft_config", {}), "model = model.merge_and_unload()"),
        (with_attribute("hf_device_map", {"model": 0, "lm_head": "cpu"}), "spread over the devices 0, cpu"),
        (with_attribute("hf_device_map", {"model": "disk", "lm_head": "cpu"}), "not in memory"),
        (lambda llama: llama.to("meta"), "not in memory, as model.embed_tokens.weight"),
        (packed, "the model is quantised (model.layers.0.mlp.up_proj.weight of torch.uint8)"),
        (lambda llama: llama.state_dict(), "a dictionary of weights"),
        (lambda llama: {}, "of the type dict: model takes"),
        (lambda llama: type(llama), "the class LlamaForCausalLM, not a trained network"),
        (lambda llama: SimpleNamespace(model=llama, tokenizer=1), "model=PIPE.model, tokenizer=PIPE.tokenizer"),
        (one_mlp_in_two_layers, "transformers cannot save the model (The weights trying to be saved contained shared"),
        (lambda llama: nn.Flatten(), "nothing to prune"),
    ],
)
def test_what_cannot_be_searched_is_told(change: Callable[[Any], Any], seen: str, llama: Any, tokenizer: Any) -> None:
    assert seen in refused(model=change(llama), tokenizer=tokenizer)


def test_hooks_and_a_forward_of_its_own_are_told(llama: Any, tokenizer: Any) -> None:
    from autoprune.given_models import with_model

    llama.enable_input_require_grads()  # a hook of transformers
    llama(torch.ones(1, 8, dtype=torch.long), output_hidden_states=True)  # and its others
    given = {"model": llama, "tokenizer": tokenizer}
    name = with_model(given)["model"]  # without a warning, which would be an error
    llama.model.layers[1].mlp.register_forward_hook(lambda *seen: None)
    with pytest.warns(
        UserWarning, match=r"the hook test_hooks_.*lambda> on model.layers.1.mlp\. A search is of the classes"
    ):
        assert with_model(given)["model"] == name
    llama.forward = functools.partial(llama.forward, use_cache=False)
    with pytest.warns(
        UserWarning, match="a forward of its own on the model, the hook .* may be missing in what it scores"
    ):
        with_model(given)


def test_a_wrong_tokenizer_is_told(llama: Any, tokenizer: Any, tiny_model: str) -> None:
    assert "give tokenizer=, as AutoTokenizer.from_pretrained(" in refused(model=llama)
    assert "of the type int" in refused(model=llama, tokenizer=3)
    assert "PreTrainedTokenizerFast(tokenizer_object=...)" in refused(
        model=llama, tokenizer=tokenizer.backend_tokenizer
    )
    assert "tokenizer goes with a live model" in refused(model=tiny_model, tokenizer=tokenizer)


def test_a_larger_vocabulary_is_told(tokenizer: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    told = refused(model=LlamaForCausalLM(LlamaConfig(vocab_size=100, **sizes)), tokenizer=tokenizer)
    assert told == "the tokenizer has 256 tokens, and the model embeds 100: it is another model's tokenizer."


# -- plain modules ------------------------------------------------------------------------------------------------


def test_a_plain_module_is_searched_and_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = Net()
    before = copy.deepcopy(net.state_dict())
    result = autoprune.search(model=net, **IMAGES)
    assert result.assembly.config.model.startswith("live:Net_")  # type: ignore[union-attr]
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    exported = result.export("smaller")
    assert "# Net, pruned" in (exported / "README.md").read_text(encoding="utf-8")
    sys.path.insert(0, str(exported))
    try:
        from load_module import load  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(exported))
    assert load(Net())(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert autoprune.evaluate(result.path)["images"] > 0
    with pytest.warns(RuntimeWarning, match="the refit made it worse"):
        assert autoprune.finetune(result.path, epochs=0).after.loss > 0
    assert autoprune.resume(result.path).loss == result.loss


def test_a_module_is_another_one_if_its_code_or_a_value_differs() -> None:
    from autoprune.given_models import with_model

    names = [with_model({"model": net})["model"] for net in (Net(), Net().eval(), Net(slope=0.1))]
    assert names[0] == names[1] != names[2]


def test_functions_that_make_a_module_are_called_or_named() -> None:
    from autoprune.given_models import with_model
    from autoprune.models.tiny_cnn import tiny_cnn

    assert with_model({"model": tiny_cnn})["model"] == "tiny-cnn"
    assert with_model({"model": lambda: Net()})["model"] == with_model({"model": Net()})["model"]
    assert "of the type int" in refused(model=lambda: 3)


def test_a_module_that_cannot_be_copied_is_told(tmp_path: Path) -> None:
    net: Any = Net()
    with open(tmp_path / "log", "w", encoding="utf-8") as net.log:
        assert "a Net that cannot be copied" in refused(model=net, **IMAGES)
    assert "goes with a model of transformers" in refused(model=Net(), tokenizer="x", **IMAGES)
    assert "images are needed" in refused(model=Net())


OTHER_PROCESS = """
import autoprune
from autoprune import UserError
from autoprune.networks import pretrained
from tests.test_live_models import Net

for call in (
    lambda: autoprune.resume("run"),
    lambda: autoprune.evaluate("run"),
    lambda: autoprune.resume("run", model=Net(slope=0.5)),
    lambda: print(autoprune.resume("run", model=Net()).loss),
    lambda: print(autoprune.evaluate("run")["images"] > 0),
):
    try:
        call()
    except UserError as error:
        print(error)
"""


def test_another_process_is_given_the_module_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = autoprune.search(model=Net(), out=tmp_path / "run", **IMAGES)
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    paths = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    told = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS], cwd=tmp_path, env=dict(os.environ) | paths,
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert "the model 'Net' was given as an object in Python" in told[0]
    assert "autoprune.resume(RUN, model=...)" in told[0]
    assert told[1] == told[0]
    assert told[2] == "the model is not the Net that the run was begun with."
    assert told[3:] == [str(result.loss), "True"]


def test_where_a_model_came_from_is_kept(llama: Any, tokenizer: Any, tiny_model: str, tmp_path: Path) -> None:
    from autoprune.given_models import named

    llama.config._name_or_path = "somebody/tiny-model"
    folder = Path(named(llama, tokenizer))
    assert folder.name == "tiny-model"
    assert 'base_model: "somebody/tiny-model"' in (folder / "README.md").read_text(encoding="utf-8")
    own = tmp_path / "own"
    shutil.copytree(tiny_model, own)
    for name in ("README.md", "LICENSE", "NOTICE.txt"):
        (own / name).write_text(f"{name} of its own", encoding="utf-8")
    llama.config._name_or_path = str(own)
    folder = Path(named(llama, tokenizer))
    assert (folder.name, sorted(file.name for file in folder.iterdir() if file.suffix != ".json")) == (
        "own", ["LICENSE", "NOTICE.txt", "README.md", "model.safetensors"],
    )  # fmt: skip


def test_a_model_is_searched_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune import given_models

    monkeypatch.setattr(given_models, "named", lambda *_: "live:Net_0")
    net = Net().to("meta")  # a device that every machine has
    assert given_models.with_model({"model": net}) == {"model": "live:Net_0", "device": "meta"}
    assert given_models.with_model({"model": net, "device": "cpu"})["device"] == "cpu"
    assert "device" not in given_models.with_model({"model": net}, places=False)


def test_networks_are_made_one_at_a_time(tiny_model: str) -> None:
    def missing(_: int) -> Any:
        loaded = pretrained.load("AutoModelForCausalLM", tiny_model, output_loading_info=True)
        return loaded[1]["missing_keys"]

    with ThreadPoolExecutor(4) as threads:
        assert not any(threads.map(missing, range(12))), "two at a time lose the tied weights"
