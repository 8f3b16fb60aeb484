"""Tiny random networks of every type that a family covers, in which every weight counts."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from autoprune import registry
from tests.conftest import save_byte_tokenizer

LAYERS, VOCABULARY, WINDOW = 6, 257, 6

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,  # not hidden_size / heads
    "intermediate_size": 48,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": 64,
    "sliding_window": WINDOW,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 256,
    "eos_token_id": 255,
}

_MIXED = {"layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2)}

SPECIAL: dict[str, dict[str, Any]] = {
    "cohere2": _MIXED,
    "cwm": _MIXED,
    "exaone4": _MIXED,
    "gemma2": _MIXED,
    "gemma3_text": _MIXED,
    "granite": {"residual_multiplier": 0.7, "attention_multiplier": 0.3, "embedding_multiplier": 2.0},
    "helium": {"head_dim": 8},  # its o_proj is square whatever the heads
    "ministral": _MIXED,
    "olmo3": _MIXED,
    "vaultgemma": _MIXED,
}
"""What a type needs besides its sizes."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere-qk-norm": ("cohere", {"use_qk_norm": True}),
    "gemma3-one-kv-group": ("gemma3_text", {**_MIXED, "num_key_value_heads": 1}),
    "gpt2-inner": ("gpt2", {"n_inner": 48}),
    "hyperclovax-post-norm": ("hyperclovax", {"use_post_norm": True, "residual_multiplier": 0.7}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-one-kv-group": ("llama", {"num_key_value_heads": 1, "attention_bias": True}),
    "opt-post-norm": ("opt", {"do_layer_norm_before": False}),
    "qwen2-sliding": ("qwen2", {"use_sliding_window": True, "max_window_layers": 3}),
    "qwen3-threes": ("qwen3", {"num_attention_heads": 6}),
    "stablelm-parallel": ("stablelm", {"use_parallel_residual": True, "use_qkv_bias": True}),
    "stablelm-qk-norm": ("stablelm", {"qk_layernorm": True}),
}
"""Switches of a type that change which weights there are."""


def model_types() -> list[str]:
    """Every type of language models that a registered family names."""
    families = [registry.load("families", name) for name in registry.names("families")]
    return sorted(t for family in families if family.task == "text" for t in family.model_types)


def names() -> list[str]:
    """Types and variants of types."""
    return sorted([*model_types(), *VARIANTS])


def tiny_model(name: str, seed: int = 0, **overrides: Any) -> Any:
    """A random network of a type or variant, in float32 and evaluation mode."""
    model_type, special = VARIANTS.get(name, (name, SPECIAL.get(name, {})))
    config_class = CONFIG_MAPPING[model_type]
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    sizes = {key: value for key, value in SIZES.items() if key in known}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_config(config_class(**{**sizes, **special, **overrides}))
        for parameter in model.parameters():
            _randomise(parameter)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _randomise(parameter: torch.nn.Parameter) -> None:
    """Matrices keep activations of order 1; vectors, which start at 0 or 1, are spread around there."""
    if parameter.dim() == 1:
        parameter.add_(0.3 * torch.randn_like(parameter))
    else:
        parameter.copy_(torch.randn_like(parameter) / min(parameter.shape) ** 0.5)


def save_tiny(name: str, path: Path, dtype: torch.dtype = torch.float32, **overrides: Any) -> Path:
    """A checkpoint of `tiny_model` with its tokenizer."""
    tiny_model(name, **overrides).to(dtype).save_pretrained(path)
    save_byte_tokenizer(path)
    return path


def random_tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Tokens `[rows, length]` without special ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY - 2, (rows, length), generator=generator)
