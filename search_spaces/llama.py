"""Llama and the many families that share its names: q, k, v, o projections and a gated MLP.

Units of a decoder layer: KV groups with their query heads, and neurons of the MLP.
"""

from typing import Any

from torch import nn

from autoprune.models.family import Family
from autoprune.models.surgery import Slice, Width

# The norm next to a sub-block leaves with it: before it in most families, after it in OLMo 2, both in Gemma 2 and 3.
_ATTENTION_NORMS = ("input_layernorm", "post_attention_layernorm")
_MLP_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm")


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The attention and MLP widths of one decoder layer."""
    return [_attention(block, config), _mlp(block, mlp_group)]


def _attention(block: nn.Module, config: Any) -> Width:
    attention = block.get_submodule("self_attn")
    head_dim = int(getattr(attention, "head_dim"))
    groups = block.get_submodule("self_attn.k_proj").out_features // head_dim
    heads = block.get_submodule("self_attn.q_proj").out_features // head_dim
    per_group = heads // groups
    # A norm over all heads at once (OLMo 2) ties them together: the attention is then one group.
    q_norm = getattr(attention, "q_norm", None)
    if q_norm is not None and q_norm.weight.numel() != head_dim:
        groups, per_group, head_dim = 1, 1, heads * head_dim
    sandwich = hasattr(block, "pre_feedforward_layernorm") or not hasattr(block, "input_layernorm")
    norms = [name for name in _ATTENTION_NORMS if hasattr(block, name)]
    key_value = block.get_submodule("self_attn.k_proj").out_features // groups
    return Width(
        kind="attention",
        groups=groups,
        producers=(
            Slice("self_attn.q_proj", per_group * head_dim, 0),
            Slice("self_attn.k_proj", key_value, 0),
            Slice("self_attn.v_proj", key_value, 0),
        ),
        consumer=Slice("self_attn.o_proj", per_group * head_dim, 1),
        on_drop={"self_attn": "zero-attention"} | dict.fromkeys(norms if sandwich else norms[:1], "identity"),
        config={
            "num_attention_heads": heads // groups,
            "num_key_value_heads": key_value // int(getattr(attention, "head_dim")),
        },
        context_macs=2 * per_group * head_dim,
    )


def _mlp(block: nn.Module, mlp_group: int) -> Width:
    neurons = block.get_submodule("mlp.up_proj").out_features
    mlp = block.get_submodule("mlp")
    projections = [name for name in ("gate_proj", "up_proj") if hasattr(mlp, name)]
    norms = [name for name in _MLP_NORMS if hasattr(block, name)] or ["post_attention_layernorm"]
    return Width(
        kind="mlp",
        groups=neurons // mlp_group,
        producers=tuple(Slice(f"mlp.{name}", mlp_group, 0) for name in projections),
        consumer=Slice("mlp.down_proj", mlp_group, 1),
        on_drop={"mlp": "zero"} | dict.fromkeys(norms, "identity"),
        config={"intermediate_size": mlp_group},
    )


FAMILY = Family(
    name="llama",
    model_types=(
        "llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2",
        "granite", "smollm3", "seed_oss", "exaone4", "arcee",
    ),
    blocks="model.layers",
    widths=widths,
    attention="self_attn",
)  # fmt: skip
