"""Vision transformers (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021): heads, and neurons of the MLP."""

from typing import Any

from torch import nn

from autoprune.cutting.widths import Slice, Width
from autoprune.networks.family import Family


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The attention and MLP widths of one layer."""
    attention: Any = block.get_submodule("attention")
    head_dim = int(attention.head_dim)
    up: Any = block.get_submodule("mlp.fc1")
    return [
        Width(
            kind="attention",
            groups=attention.q_proj.out_features // head_dim,
            producers=tuple(Slice(f"attention.{name}", head_dim, 0) for name in ("q_proj", "k_proj", "v_proj")),
            consumer=Slice("attention.o_proj", head_dim, 1),
            on_drop={"attention": "zero-attention", "layernorm_before": "identity"},
            attributes={"attention.num_attention_heads": 1},
            config={"num_attention_heads": 1},
            context_macs=2 * head_dim,
        ),
        Width(
            kind="mlp",
            groups=up.out_features // mlp_group,
            producers=(Slice("mlp.fc1", mlp_group, 0),),
            consumer=Slice("mlp.fc2", mlp_group, 1),
            on_drop={"mlp": "zero", "layernorm_after": "identity"},
            config={"intermediate_size": mlp_group},
        ),
    ]


FAMILY = Family(name="vit", model_types=("vit",), blocks="vit.layers.*", widths=widths, task="images")
DEIT = Family(name="deit", model_types=("deit",), blocks="deit.layers.*", widths=widths, task="images")
