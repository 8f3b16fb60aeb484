"""A network's weights under the names, and in the layouts, of an architecture of llama.cpp.

Shapes: H heads, E numbers of a head, D hidden, F neurons of a feed-forward.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autoprune.errors import UserError
from autoprune.exporters.gguf.architectures import Architecture, LayerConfig

ALIGNED = 32
"""Neurons of the smallest feed-forward, and the length of a block of quantised weights."""
LARGEST = 62
"""Layers of the largest Gemma 3."""


def tensors(
    state: Mapping[str, Tensor], architecture: Architecture, config: Any, layers: Sequence[LayerConfig]
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the file, by name.

    Args:
        state: the network's own, with layers numbered from 0.
        architecture: from `architecture_of`.
        config: the network's configuration.
        layers: what is left of each layer.

    Raises:
        UserError: a tensor has no place in the architecture.
    """
    import gguf

    kind = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.name)
    names = gguf.get_tensor_name_map(kind, len(layers))
    for name, tensor in _complete(dict(state), architecture, config, layers).items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise UserError(f"the architecture '{architecture.name}' of llama.cpp has no place for '{name}'.")
        tensor = tensor + architecture.norm_offset if "norm" in found else tensor
        yield found, tensor * query_factor(config, len(layers)) if found.endswith("attn_q_norm.weight") else tensor


def _complete(
    state: dict[str, Tensor], architecture: Architecture, config: Any, layers: Sequence[LayerConfig]
) -> dict[str, Tensor]:
    """The state with what the architecture asks for: transposed, permuted, fused, and zeros for what is dropped."""
    if architecture.positions:  # GPT-2, whose linear layers keep their weights transposed
        projections = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
        return {name: tensor.T if name.endswith(projections) else tensor for name, tensor in state.items()}
    width = head_width(config)
    for i, layer in enumerate(layers):
        prefix = f"model.layers.{i}."
        skipped = layer.get("skip", ())
        if "mlp" in skipped:
            _add_empty_mlp(state, prefix, config)
        else:
            _align_mlp(state, prefix)
        if "attention" in skipped and (architecture.fused or i == 0):
            _add_empty_attention(state, prefix, config, architecture)
        elif "attention" in skipped:
            continue
        if architecture.permuted:
            for name in ("q_proj", "k_proj"):
                for what in ("weight", "bias"):
                    key = f"{prefix}self_attn.{name}.{what}"
                    if key in state:
                        state[key] = permuted(state[key], width)
        if architecture.fused:
            parts = [state.pop(f"{prefix}self_attn.{name}_proj.weight") for name in "qkv"]
            state[f"{prefix}self_attn.qkv_proj.weight"] = torch.cat(parts)
    return state


def permuted(rows: Tensor, width: int) -> Tensor:
    """Rows of heads `[H * E, ...]` with the two halves of each head interleaved."""
    heads = rows.reshape(-1, 2, width // 2, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)


def query_factor(config: Any, layers: int) -> float:
    """What queries are multiplied by, so that llama.cpp's own scale of attention gives the network's.

    It divides Gemma 3's by the root of a head's width; in a network of as many layers as the largest has, by that of
    the hidden width for each head.
    """
    scalar = getattr(config, "query_pre_attn_scalar", None)
    if scalar is None:
        return 1.0
    assumed = config.hidden_size // config.num_attention_heads if layers == LARGEST else head_width(config)
    return float((assumed / scalar) ** 0.5)


def head_width(config: Any) -> int:
    """Numbers of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def feed_forward(layer: LayerConfig) -> int:
    """Neurons that the file has of a layer: at least one block of them, and whole blocks."""
    kept = 0 if "mlp" in layer.get("skip", ()) else int(layer["intermediate_size"])
    return max(ALIGNED, -(-kept // ALIGNED) * ALIGNED)


def _add_empty_mlp(state: dict[str, Tensor], prefix: str, config: Any) -> None:
    """A feed-forward of zeros: a width of 0 would make llama.cpp leave out the attention before it, without a word."""
    like = state["model.embed_tokens.weight"]
    state[f"{prefix}post_attention_layernorm.weight"] = like.new_ones(config.hidden_size)
    for name in ("gate_proj", "up_proj"):
        state[f"{prefix}mlp.{name}.weight"] = like.new_zeros(ALIGNED, config.hidden_size)
    state[f"{prefix}mlp.down_proj.weight"] = like.new_zeros(config.hidden_size, ALIGNED)


def _align_mlp(state: dict[str, Tensor], prefix: str) -> None:
    """Neurons of zeros up to whole blocks of weights."""
    for name, dim in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
        for what in ("weight", "bias"):
            key = f"{prefix}mlp.{name}.{what}"
            if key in state and (what == "weight" or dim == 0):
                missing = -state[key].shape[dim] % ALIGNED
                shape = [missing if d == dim else size for d, size in enumerate(state[key].shape)]
                state[key] = torch.cat([state[key], state[key].new_zeros(shape)], dim)


def _add_empty_attention(state: dict[str, Tensor], prefix: str, config: Any, architecture: Architecture) -> None:
    """One group of heads of zeros, which give nothing."""
    like, width = state["model.embed_tokens.weight"], head_width(config)
    queries, keys = empty_heads(config)
    state[f"{prefix}input_layernorm.weight"] = like.new_ones(config.hidden_size)
    for name, heads in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        state[f"{prefix}self_attn.{name}.weight"] = like.new_zeros(heads * width, config.hidden_size)
    state[f"{prefix}self_attn.o_proj.weight"] = like.new_zeros(config.hidden_size, queries * width)
    if architecture.fused:
        for name in ("q_norm", "k_norm"):
            state[f"{prefix}self_attn.{name}.weight"] = like.new_ones(width)


def empty_heads(config: Any) -> tuple[int, int]:
    """Query and KV heads of an attention of zeros."""
    return config.num_attention_heads // config.num_key_value_heads, 1
