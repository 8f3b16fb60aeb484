"""The searches of `parity.py`, what they read, and which results were changed on purpose; no benchmark itself."""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import parity_networks

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared"
NETWORKS = HERE / "parity_networks.py"
TOKENIZER = HERE.parent / "autoprune" / "assets" / "tiny-llama"
HEADS, NEURONS, LAYERS = 4, 96, 4


@dataclass(frozen=True)
class Change:
    """A result that was changed on purpose.

    Args:
        commit: that changed it; what is older has other results.
        reason: what was wrong.
    """

    commit: str
    reason: str


CHANGES: dict[str, Change] = {
    "heads": Change("b7342da", "an attention was cut into whole KV groups where it is cut into query heads now"),
    "observation": Change("b7342da", "the parameters of a group, which agents observe, included keys and values"),
    "order": Change("b7342da", "heads are put in another order, so that sums differ in their last bits"),
    "refit": Change("9a51084", "the refit had no held-out part, and fine-tuning handed over its last network"),
    "slopes": Change("ee564f2", "slopes drew other tokens, with torch.multinomial"),
    "splits": Change("548c430", "splits of images were other ones where there are few"),
    "switches": Change("f3da74e", "evopress drew pairs of units until one was allowed, and did not end where none is"),
    "traces": Change("54e67d6", "operations of traced networks were known by name; fewer widths were found"),
    "uniform": Change("44ca3b1", "uniform rounded one common level down and then filled up unit by unit"),
}
"""Name -> what is known. A row that differs where such a change touches it is excused, and never counted as equal."""


@dataclass(frozen=True)
class Search:
    """One search that both sides make.

    Args:
        settings: keyword arguments of `autoprune.search`; a function of the folder with what is read.
        touches: names of CHANGES that change what it finds.
        export: form in which its network is written and compared.
        finetune: keyword arguments of `autoprune.finetune`.
        latencies: whether the run is given `latency.json` before it begins.
    """

    settings: Callable[[Path], dict[str, Any]]
    touches: tuple[str, ...] = ()
    export: str | None = None
    finetune: Mapping[str, Any] = field(default_factory=dict)
    latencies: bool = False


TEXT: dict[str, Any] = {
    "sequence_length": 32, "reconstruction_sequences": 16, "search_sequences": 8, "validation_sequences": 8,
    "levels": 5, "max_evals": 60,
}  # fmt: skip
IMAGES: dict[str, Any] = {
    "sequence_length": 16, "reconstruction_sequences": 4, "search_sequences": 4, "validation_sequences": 2,
    "levels": 5, "batch": 4, "max_evals": 60,
}  # fmt: skip
CLIMBS_NOT = {"slope_sequences": 0}


def text(model: str, agent: str, **more: Any) -> Callable[[Path], dict[str, Any]]:
    """Settings of a search of a language model in the folder."""
    return lambda folder: {
        "model": str(folder / model),
        "data": str(folder / "text.txt"),
        "agent": agent,
        **TEXT,
        **more,
    }


def images(function: str, agent: str, **more: Any) -> Callable[[Path], dict[str, Any]]:
    """Settings of a search of a network in parity_networks.py."""
    model = f"{NETWORKS}:{function}"
    return lambda folder: {"model": model, "data": str(folder / "images.npz"), "agent": agent, **IMAGES, **more}


def digits(agent: str, **more: Any) -> Callable[[Path], dict[str, Any]]:
    """Settings of a search of the embedded network that reads digits."""
    return lambda folder: {"model": "tiny-cnn", "agent": agent, **IMAGES, **more}


def embedded(agent: str, **more: Any) -> Callable[[Path], dict[str, Any]]:
    """Settings of a search of the embedded language model, which has two query heads in each KV group."""
    return lambda folder: {"data": str(folder / "text.txt"), "agent": agent, **TEXT, "sequence_length": 64, **more}


def table(agent: str, bound: float, **more: Any) -> Callable[[Path], dict[str, Any]]:
    """Settings of a search of the Llama whose budget is a table."""
    return lambda folder: text("llama", agent, budgets={str(folder / "costs.csv"): bound}, **more)(folder)


SEARCHES: dict[str, Search] = {
    "llama-evolution": Search(text("llama", "evolution", budgets={"params": 0.5}, agent_options=CLIMBS_NOT), (), "hf"),
    "llama-default": Search(embedded("evolution", budgets={"params": 0.6}), ("uniform", "heads", "slopes"), "hf"),
    "llama-depth": Search(embedded("greedy", space="depth", budgets={"params": 0.7}), ("order",), "hf"),
    "llama-ppo": Search(text("llama", "ppo", budgets={"macs": 0.6}, max_evals=80), ("observation",)),
    "llama-masks": Search(text("llama", "policy-gradient-masks", budgets={"params": 0.6}), (), "hf"),
    "llama-latency": Search(table("evolution", 0.6, agent_options=CLIMBS_NOT)),
    "llama-run-latency": Search(text("llama", "tpe", budgets={"latency": 0.7, "params": 0.8}), latencies=True),
    "gpt2-evopress": Search(text("gpt2", "evopress", budgets={"params": 0.6}), ("switches",), "hf"),
    "gpt2-dqn": Search(text("gpt2", "dqn", budgets={"params": 0.6}, max_evals=80)),
    "gpt2-policy-gradient": Search(text("gpt2", "policy-gradient", budgets={"params": 0.5, "macs": 0.6})),
    "gpt2-finetune": Search(
        text("gpt2", "random", budgets={"params": 0.7}, max_evals=10), finetune={"epochs": 1, "refit": False}
    ),
    "tiny-cnn-nsga2": Search(digits("nsga2", budgets={"macs": 0.6, "params": 0.7})),
    "tiny-cnn-refit": Search(
        digits("random", budgets={"macs": 0.6}, max_evals=10), ("refit",), finetune={"epochs": 1, "batch": 32}
    ),
    "traced-evolution": Search(
        images("chain", "evolution", budgets={"macs": 0.6}, levels=9, agent_options=CLIMBS_NOT), ("traces",), "module"
    ),
    "resnet20-additive": Search(
        images("resnet20", "additive", budgets={"macs": 0.5}, max_evals=40), ("splits",), "module"
    ),
    "resnet20-ppo": Search(images("resnet20", "ppo", budgets={"macs": 0.5}, max_evals=40), ("splits",)),
}


# -- what they read --------------------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Write networks, texts, images and tables for all searches."""
    write_text(folder / "text.txt")
    write_images(folder / "images.npz")
    write_llama(folder / "llama")
    write_gpt2(folder / "gpt2")
    write_costs(folder)
    weights = SHARED / "models" / "cifar-resnet20" / "model.safetensors"
    if weights.is_file():
        os.environ[parity_networks.WEIGHTS] = str(weights)


def write_text(path: Path) -> None:
    """About 60,000 characters of words in random order."""
    words = ("the", "a", "network", "layer", "neuron", "head", "keeps", "drops", "small", "search", "policy", "weight")
    rng = random.Random(0)
    path.write_text(" ".join(rng.choice(words) for _ in range(12_000)), encoding="utf-8")


def write_images(path: Path) -> None:
    """160 images of CIFAR-10 where it is at hand, otherwise noise; labels in both."""
    packed, count = SHARED / "data" / "cifar10_jpeg_packed.npz", 160
    if packed.is_file():
        pictures, labels = _unpacked(packed, count)
    else:
        rng = np.random.default_rng(0)
        pictures, labels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, count)
    np.savez(path, images=pictures, labels=labels)


def _unpacked(packed: Path, count: int) -> tuple[Any, Any]:
    """The first training images of a .npz that holds JPEGs with one common header."""
    import io

    from PIL import Image

    with np.load(packed) as file:
        header, data, ends = file["header"].tobytes(), file["buf_train"], file["off_train"]
        raws = [header + data[ends[i] : ends[i + 1]].tobytes() for i in range(count)]
        pictures = np.stack([np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")) for raw in raws])
        return pictures, file["y_train"][:count].astype(np.int64)


def write_llama(folder: Path) -> None:
    """A random Llama with as many KV heads as query heads, so that its levels were always the same."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=3072, hidden_size=64, intermediate_size=NEURONS, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, max_position_embeddings=128, initializer_range=0.1, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    _write(LlamaForCausalLM, config, folder)


def write_gpt2(folder: Path) -> None:
    """A random GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=3072, n_embd=64, n_layer=LAYERS, n_head=HEADS, n_inner=NEURONS, n_positions=128,
        initializer_range=0.1, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    _write(GPT2LMHeadModel, config, folder)


def _write(kind: Any, config: Any, folder: Path) -> None:
    import torch

    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)


def write_costs(folder: Path) -> None:
    """Costs of the Llama's levels with a step where a unit goes: a table, and the same as a run's latencies."""
    steps = {"attention": [HEADS * i // 4 for i in range(5)], "mlp": [NEURONS * i // 4 for i in range(5)]}
    cost = {kind: [0.0 if k == 0 else 0.2 + k / kept[-1] for k in kept] for kind, kept in steps.items()}
    rows = [f"{kind},{k},{ms}" for kind, kept in steps.items() for k, ms in zip(kept, cost[kind], strict=True)]
    (folder / "costs.csv").write_text("\n".join(["unit,kept,cost", *rows]) + "\n", encoding="utf-8")
    classes = [
        {"units": [f"{layer}.{kind}" for layer in range(LAYERS)], "kept": kept, "ms": cost[kind]}
        for kind, kept in steps.items()
    ]
    latencies = {"schema": "autoprune.latency/1", "measured_on": {"device": "none"}, "fixed": 0.5, "checks": []}
    (folder / "latency.json").write_text(json.dumps(latencies | {"classes": classes}), encoding="utf-8")
