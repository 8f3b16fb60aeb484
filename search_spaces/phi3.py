"""Phi-3: queries, keys and values in one projection, gate and up in another; heads are read from the configuration."""

from typing import Any

from torch import nn

from autoprune.cutting.widths import Bundles, Segment, Slice, Width
from autoprune.networks.family import Family


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The attention and MLP widths of one decoder layer."""
    attention: Any = block.get_submodule("self_attn")
    down: Any = block.get_submodule("mlp.down_proj")
    head_dim, heads = int(attention.head_dim), config.num_attention_heads
    key_values = Segment(head_dim, shared=True)
    return [
        Width(
            kind="attention",
            groups=heads,
            producers=(Slice("self_attn.qkv_proj", head_dim, 0, more=(key_values, key_values)),),
            consumer=Slice("self_attn.o_proj", head_dim, 1),
            on_drop={"self_attn": "zero-attention", "input_layernorm": "identity"},
            attributes={"self_attn.config.num_attention_heads": 1},
            config={"num_attention_heads": 1},
            context_macs=2 * head_dim,
            cache=2 * head_dim,
            bundles=Bundles(
                size=heads // attention.num_key_value_heads,
                attributes={"self_attn.num_key_value_heads": 1},
                config={"num_key_value_heads": 1},
                sizes=("self_attn.num_key_value_groups",),
            ),
        ),
        Width(
            kind="mlp",
            groups=down.in_features // mlp_group,
            producers=(Slice("mlp.gate_up_proj", mlp_group, 0, parts=2),),
            consumer=Slice("mlp.down_proj", mlp_group, 1),
            on_drop={"mlp": "zero", "post_attention_layernorm": "identity"},
            config={"intermediate_size": mlp_group},
        ),
    ]


FAMILY = Family(name="phi3", model_types=("phi3",), blocks="model.layers", widths=widths, attention="self_attn")
