"""What people do with a native export besides loading it: other heads, assisted generation, adapters, new tokens."""

import copy
import multiprocessing
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)

from autoprune.exporting import export_policy
from autoprune.provenance import make_policy
from tests import families, image_families, tiny_searches
from tests.contracts.test_exporters import awkward_images, awkward_levels, tiny_assembly

TOKENS = families.random_tokens(2, 13)
TYPES = ("llama", "qwen2", "gpt2", "opt", "phi3", "gemma2", "stablelm")
HEADS: dict[Any, dict[str, Any]] = {
    AutoModelForSequenceClassification: {"labels": torch.tensor([0, 1])},
    AutoModelForTokenClassification: {"labels": torch.ones_like(TOKENS)},
    AutoModelForQuestionAnswering: {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 4])},
}
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, text_file: str) -> dict[str, tuple[Path, Path]]:
    """Type -> a dense network and its native export."""
    folder, found = tmp_path_factory.mktemp("heads"), {}
    for name in TYPES:
        dense = folder / name
        assembly = tiny_assembly(name, dense, text_file)
        policy = make_policy(assembly, awkward_levels(assembly), {})
        found[name] = dense, export_policy(assembly, policy, folder / f"{name}-pruned")
    return found


def has_head(auto: Any, path: Path) -> bool:
    from transformers import AutoConfig

    return type(AutoConfig.from_pretrained(path)) in auto._model_mapping


@pytest.mark.parametrize("name", TYPES)
def test_every_head_of_its_family_is_put_on_the_pruned_body(
    name: str, exports: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    dense, path = exports[name]
    body = AutoModelForCausalLM.from_pretrained(path).base_model(TOKENS)[0]
    torch.testing.assert_close(AutoModel.from_pretrained(path)(TOKENS)[0], body)
    heads = [auto for auto in HEADS if has_head(auto, dense)]
    assert AutoModelForSequenceClassification in heads
    for auto in heads:
        model = auto.from_pretrained(path)
        torch.testing.assert_close(model.base_model(TOKENS)[0], body)
        loss = model(TOKENS, **HEADS[auto]).loss
        loss.backward()
        assert torch.isfinite(loss)
        model.save_pretrained(tmp_path / auto.__name__)
        again = auto.from_pretrained(tmp_path / auto.__name__)
        torch.testing.assert_close(again(TOKENS)[0], model(TOKENS)[0])
        for one in (pickle.loads(pickle.dumps(again)), copy.deepcopy(again)):
            assert type(one) is type(again)
            assert torch.equal(one(TOKENS)[0], again(TOKENS)[0])


def test_a_network_of_images_has_its_body_and_its_head(
    tmp_path: Path, text_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageClassification

    from autoprune.assembly import assemble
    from autoprune.config import load_config

    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    assembly = assemble(load_config(None, tiny_searches.settings("vit", tmp_path / "dense", text_file)))
    path = export_policy(assembly, make_policy(assembly, awkward_images(assembly), {}), tmp_path / "out")
    pixels = torch.randn(2, 3, image_families.SIDE, image_families.SIDE)
    model = AutoModelForImageClassification.from_pretrained(path)
    bodies = [one(pixel_values=pixels)[0] for one in (AutoModel.from_pretrained(path), model.base_model)]
    torch.testing.assert_close(*bodies)
    assert torch.equal(pickle.loads(pickle.dumps(model))(pixels).logits, model(pixels).logits)


# -- generating ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_it_assists_its_dense_network_and_is_assisted_by_it(name: str, exports: dict[str, tuple[Path, Path]]) -> None:
    dense, pruned = (AutoModelForCausalLM.from_pretrained(path) for path in exports[name])
    asked = {"input_ids": TOKENS[:1], "attention_mask": torch.ones_like(TOKENS[:1])}
    for target, assistant in ((dense, pruned), (pruned, dense)):
        alone = target.generate(**asked, **GREEDY)
        assert torch.equal(target.generate(**asked, **GREEDY, assistant_model=assistant), alone)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_pipelines(name: str, exports: dict[str, tuple[Path, Path]]) -> None:
    _, path = exports[name]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    for given in ({"model": str(path)}, {"model": model, "tokenizer": tokenizer}):
        (answer,) = pipeline("text-generation", device="cpu", **given)("the network", max_new_tokens=4, do_sample=False)
        assert answer["generated_text"].startswith("the network")


# -- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPES)
def test_new_tokens_and_gradient_checkpointing(
    name: str, exports: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(exports[name][1])
    with torch.no_grad():  # a graph would keep the old sizes
        before = model(TOKENS).logits
    model.resize_token_embeddings(families.VOCABULARY + 7, mean_resizing=False)
    torch.testing.assert_close(model(TOKENS).logits[..., : families.VOCABULARY], before)
    model.save_pretrained(tmp_path / "more")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "more")
    torch.testing.assert_close(again(TOKENS).logits, model(TOKENS).logits)
    model.eval()
    plain = gradients(model)
    with warnings.catch_warnings():  # the older name, which most scripts use
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable()
    assert model.is_activation_checkpointing
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found = gradients(model)
    assert plain.keys() == found.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5)


def gradients(model: Any) -> dict[str, Tensor]:
    model.zero_grad()
    for name, value in vars(model.config).items():
        if "dropout" in name or "pdrop" in name:
            setattr(model.config, name, type(value)(0))
    for module in model.modules():
        for name in ("dropout", "layerdrop", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    model(TOKENS, labels=TOKENS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_adapters_of_peft(name: str, exports: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    path = exports[name][1]
    fan = {"fan_in_fan_out": True} if name == "gpt2" else {}
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", **fan)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(path), config)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    losses = []
    for _ in range(3):
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    model.eval()
    expected = model(input_ids=TOKENS).logits
    model.save_pretrained(tmp_path / "adapters")
    again = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(path), tmp_path / "adapters")
    torch.testing.assert_close(again(input_ids=TOKENS).logits, expected)
    merged = again.merge_and_unload()
    torch.testing.assert_close(merged(TOKENS).logits, expected, rtol=1e-3, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(loaded(TOKENS).logits, merged(TOKENS).logits)


# -- processes -------------------------------------------------------------------------------------------------------


class Logits(torch.utils.data.Dataset[Tensor]):
    """A data set that holds a model, as those that embed while they load."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __len__(self) -> int:
        return len(TOKENS)

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.model(TOKENS[index : index + 1]).logits[0]
        return logits


def parameters_of(model: Any) -> tuple[int, int]:
    return os.getpid(), sum(parameter.numel() for parameter in model.parameters())


def test_spawned_processes_take_the_model(exports: dict[str, tuple[Path, Path]]) -> None:
    model = AutoModelForCausalLM.from_pretrained(exports["llama"][1]).requires_grad_(False)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        process, count = pool.apply(parameters_of, (model,))
    assert process != os.getpid()
    assert count == sum(parameter.numel() for parameter in model.parameters())
    loader = torch.utils.data.DataLoader(
        Logits(model), batch_size=2, num_workers=1, multiprocessing_context="spawn"
    )  # fmt: skip
    (batch,) = loader
    torch.testing.assert_close(batch, model(TOKENS).logits)
