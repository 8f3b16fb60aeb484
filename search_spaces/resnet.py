"""Residual networks of basic blocks (He et al. 2016) as plain modules, in the naming of torchvision and of CIFAR's.

Unit of a block: the channels between its two convolutions. The residual stream stays.
"""

from typing import Any

from torch import nn

from autoprune.models.family import Family
from autoprune.models.surgery import Slice, Width


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The inner channels of one basic block."""
    inner: Any = block.get_submodule("conv1")
    return [
        Width(
            kind="conv",
            groups=inner.out_channels,
            producers=(Slice("conv1", 1, 0), Slice("bn1", 1, 0)),
            consumer=Slice("conv2", 1, 1),
            on_drop={"conv1": "zero-convolution", "bn1": "identity", "conv2": "zero-convolution", "bn2": "identity"},
            norm="bn2",
        )
    ]


def fits(model: nn.Module) -> bool:
    """Whether all of a module's blocks are basic ones."""
    stages = [stage for name, stage in model.named_children() if name.startswith("layer")]
    blocks = [block for stage in stages for block in stage.children()]
    return bool(blocks) and all(map(_basic, blocks))


def _basic(block: nn.Module) -> bool:
    parts = [getattr(block, name, None) for name in ("conv1", "bn1", "conv2", "bn2")]
    convs, norms = parts[::2], parts[1::2]
    return (
        all(isinstance(conv, nn.Conv2d) and conv.groups == 1 for conv in convs)
        and all(isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats for norm in norms)
        and not hasattr(block, "conv3")
    )


FAMILY = Family(name="resnet", model_types=(), blocks="layer*.*", widths=widths, task="images", fits=fits)
