"""OPT: separate projections with biases, and an MLP that is two layers of the block itself."""

from typing import Any

from torch import nn

from autoprune.cutting.widths import Slice, Width
from autoprune.networks.family import Family


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The attention and MLP widths of one OPT decoder layer."""
    head_dim = config.hidden_size // config.num_attention_heads
    # OPT-350m normalises the residual stream after each sub-block: that norm must stay when the sub-block goes.
    leaves = "identity" if config.do_layer_norm_before else None
    attention = Width(
        kind="attention",
        groups=config.num_attention_heads,
        producers=tuple(Slice(f"self_attn.{name}", head_dim, 0) for name in ("q_proj", "k_proj", "v_proj")),
        consumer=Slice("self_attn.out_proj", head_dim, 1),
        on_drop={"self_attn": "zero-attention"} | ({"self_attn_layer_norm": leaves} if leaves else {}),
        attributes={"self_attn.num_heads": 1},
        config={"num_attention_heads": 1},
        context_macs=2 * head_dim,
        cache=2 * head_dim,
    )
    mlp = Width(
        kind="mlp",
        groups=config.ffn_dim // mlp_group,
        producers=(Slice("fc1", mlp_group, 0),),
        consumer=Slice("fc2", mlp_group, 1),
        on_drop={"fc1": "identity", "fc2": "zero"} | ({"final_layer_norm": leaves} if leaves else {}),
        config={"ffn_dim": mlp_group},
    )
    return [attention, mlp]


FAMILY = Family(name="opt", model_types=("opt",), blocks="model.decoder.layers", widths=widths, attention="self_attn")
