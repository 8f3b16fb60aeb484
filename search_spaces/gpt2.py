"""GPT-2: fused q|k|v in transposed `Conv1D`s, heads of the attention and neurons of the MLP."""

from typing import Any

from torch import nn

from autoprune.cutting.widths import Slice, Width
from autoprune.errors import UserError
from autoprune.networks.family import Family


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The attention and MLP widths of one GPT-2 block."""
    if config.scale_attn_by_inverse_layer_idx or config.add_cross_attention:
        raise UserError(
            "this GPT-2 scales attention by its layer's index or attends across: removing layers would change it, "
            "and autoprune does not support that."
        )
    head_dim = config.n_embd // config.n_head
    down: Any = block.get_submodule("mlp.c_proj")
    neurons = down.weight.shape[0]
    if not neurons:
        raise UserError("this GPT-2 has an MLP of no neurons (n_inner is 0), and transformers itself cannot run it.")
    attention = Width(
        kind="attention",
        groups=config.n_head,
        producers=(Slice("attn.c_attn", head_dim, 1, parts=3),),
        consumer=Slice("attn.c_proj", head_dim, 0),
        on_drop={"attn": "zero-attention", "ln_1": "identity"},
        attributes={"attn.num_heads": 1, "attn.split_size": head_dim},
        config={"num_attention_heads": 1},
        context_macs=2 * head_dim,
        cache=2 * head_dim,
    )
    mlp = Width(
        kind="mlp",
        groups=neurons // mlp_group,
        producers=(Slice("mlp.c_fc", mlp_group, 1),),
        consumer=Slice("mlp.c_proj", mlp_group, 0),
        on_drop={"mlp": "zero", "ln_2": "identity"},
        config={"n_inner": mlp_group},
    )
    return [attention, mlp]


FAMILY = Family(name="gpt2", model_types=("gpt2",), blocks="transformer.h", widths=widths, attention="attn")
