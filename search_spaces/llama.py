"""Llama and the many families that share its names: q, k, v, o projections and a gated MLP.

The units of a decoder layer are query heads and neurons of the MLP. The query heads of a KV group share its keys and
values.
"""

from typing import Any

from torch import nn

from autoprune.cutting.widths import Bundles, Slice, Width
from autoprune.networks.family import Family

# A norm leaves with the sub-block that it alone serves, before it or after it.
_ATTENTION_NORMS = ("input_layernorm", "attention_layernorm", "post_norm1")
_MLP_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm", "feedforward_layernorm", "post_norm2")


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The attention and MLP widths of one decoder layer."""
    attention_norms, mlp_norms = _norms(block)
    return [_attention(block, attention_norms), _mlp(block, mlp_group, mlp_norms)]


def _norms(block: nn.Module) -> tuple[list[str], list[str]]:
    """The norms that leave with the attention, and with the MLP."""
    present = [name for name, child in block.named_children() if child is not None]
    attention = [name for name in _ATTENTION_NORMS if name in present]
    mlp = [name for name in _MLP_NORMS if name in present]
    if "post_attention_layernorm" in present:
        # behind the attention where the MLP has a norm of its own (Gemma 2, OLMo 2), else before the MLP (Llama)
        behind_attention = any(name.endswith("feedforward_layernorm") for name in mlp)
        (attention if behind_attention else mlp).append("post_attention_layernorm")
    if not mlp:
        return [], []  # attention and MLP side by side behind one norm (Cohere)
    return attention, mlp


def _attention(block: nn.Module, norms: list[str]) -> Width:
    attention: Any = block.get_submodule("self_attn")
    head_dim = int(attention.head_dim)
    groups = attention.k_proj.out_features // head_dim
    heads = attention.q_proj.out_features // head_dim
    # heads that are tied leave together: a bundle is then one group
    tied = _heads_are_tied(attention, head_dim)
    per_bundle, key_values = (heads, groups) if tied else (heads // groups, 1)
    per_group = per_bundle if tied else 1
    counted = {name: f"self_attn.{name}" for name in ("num_heads", "num_key_value_heads") if hasattr(attention, name)}
    return Width(
        kind="attention",
        groups=heads // per_group,
        producers=(
            Slice("self_attn.q_proj", per_group * head_dim, 0),
            Slice("self_attn.k_proj", key_values * head_dim, 0, shared=True),
            Slice("self_attn.v_proj", key_values * head_dim, 0, shared=True),
        ),
        consumer=Slice("self_attn.o_proj", per_group * head_dim, 1),
        on_drop={"self_attn": "zero-attention"} | dict.fromkeys(norms, "identity"),
        attributes={path: per_group for name, path in counted.items() if name == "num_heads"},  # as StableLM does
        config={"num_attention_heads": per_group},
        context_macs=2 * per_group * head_dim,
        cache=2 * key_values * head_dim,
        bundles=Bundles(
            size=per_bundle // per_group,
            attributes={path: key_values for name, path in counted.items() if name == "num_key_value_heads"},
            config={"num_key_value_heads": key_values},
            sizes=("self_attn.num_key_value_groups",) if per_group == 1 else (),
        ),
    )


def _heads_are_tied(attention: nn.Module, head_dim: int) -> bool:
    """Whether norms inside run over all heads (OLMo 2), or hold weights for each (Cohere): then they go together."""
    projections = {"q_proj", "k_proj", "v_proj", "o_proj"}
    inside = [p for name, child in attention.named_children() if name not in projections for p in child.parameters()]
    return sum(parameter.numel() for parameter in inside) > 2 * head_dim


def _mlp(block: nn.Module, mlp_group: int, norms: list[str]) -> Width:
    mlp: Any = block.get_submodule("mlp")
    projections = [name for name in ("gate_proj", "up_proj") if hasattr(mlp, name)]
    return Width(
        kind="mlp",
        groups=mlp.up_proj.out_features // mlp_group,
        producers=tuple(Slice(f"mlp.{name}", mlp_group, 0) for name in projections),
        consumer=Slice("mlp.down_proj", mlp_group, 1),
        on_drop={"mlp": "zero"} | dict.fromkeys(norms, "identity"),
        config={"intermediate_size": mlp_group},
    )


FAMILY = Family(
    name="llama",
    model_types=(
        "apertus", "arcee", "cohere", "cohere2", "cwm", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text",
        "granite", "helium", "hunyuan_v1_dense", "hyperclovax", "internlm3", "iquestcoder", "jais2", "llama",
        "ministral", "ministral3", "mistral", "nemotron", "olmo", "olmo2", "olmo3", "qwen2", "qwen3", "seed_oss",
        "smollm3", "stablelm", "vaultgemma",
    ),
    blocks="model.layers",
    widths=widths,
    attention="self_attn",
)  # fmt: skip
