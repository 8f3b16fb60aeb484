"""MobileNetV2 (Sandler et al. 2018): the expanded channels of an inverted residual, depthwise convolution included."""

from typing import Any

from torch import nn

from autoprune.cutting.widths import Slice, Width
from autoprune.networks.family import Family

LAYERS = ("expand_1x1", "conv_3x3", "reduce_1x1")


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The expansion width of one inverted residual."""
    convs, norms = ([f"{layer}.{part}" for layer in LAYERS] for part in ("convolution", "normalization"))
    expand: Any = block.get_submodule(convs[0])
    return [
        Width(
            kind="conv",
            groups=expand.out_channels,
            producers=tuple(Slice(path, 1, 0) for pair in zip(convs[:2], norms[:2], strict=True) for path in pair),
            consumer=Slice(convs[2], 1, 1),
            on_drop=dict.fromkeys(convs[:2], "narrow-convolution")
            | {convs[2]: "zero-convolution"}
            | dict.fromkeys(norms, "identity"),
            config={"inner_channels": 1},
            norm=norms[2],
            droppable=bool(block.use_residual),
        )
    ]


FAMILY = Family(
    name="mobilenet", model_types=("mobilenet_v2",), blocks="mobilenet_v2.layer.*", widths=widths, task="images"
)
