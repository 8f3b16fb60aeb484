"""ConvNeXt (Liu et al. 2022): the neurons between a block's two pointwise layers."""

from typing import Any

from torch import nn

from autoprune.cutting.widths import Slice, Width
from autoprune.networks.family import Family


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The MLP width of one block; its depthwise convolution leaves with it."""
    up: Any = block.get_submodule("pwconv1")
    return [
        Width(
            kind="mlp",
            groups=up.out_features // mlp_group,
            producers=(Slice("pwconv1", mlp_group, 0),),
            consumer=Slice("pwconv2", mlp_group, 1),
            on_drop=dict.fromkeys(("dwconv", "layernorm", "pwconv1"), "identity") | {"pwconv2": "zero"},
            config={"intermediate_size": mlp_group},
        )
    ]


FAMILY = Family(
    name="convnext",
    model_types=("convnext",),
    blocks="convnext.encoder.stages.*.layers.*",
    before="downsampling_layer",
    widths=widths,
    task="images",
)
