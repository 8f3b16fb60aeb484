"""Residual networks (He et al. 2016): basic blocks and bottlenecks.

They may be plain modules, named as in torchvision or as CIFAR's, or models of transformers. The unit of a block is the
channels inside it; in a bottleneck, the channels before and after its middle convolution are one unit. The residual
stream is not cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from autoprune.cutting.widths import Slice, Width
from autoprune.networks.family import Family

PLAIN = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")]
TRANSFORMERS = [(f"layer.{i}.convolution", f"layer.{i}.normalization") for i in range(3)]


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The inner channels of one block."""
    present = dict(block.named_modules())
    layers = [pair for pair in (*PLAIN, *TRANSFORMERS) if pair[0] in present]
    on_drop = {conv: "narrow-convolution" for conv, _ in layers} | {norm: "identity" for _, norm in layers}
    on_drop[layers[-1][0]] = "zero-convolution"
    return [_between(present, layers, on_drop)]


def _between(present: Mapping[str, Any], layers: Sequence[tuple[str, str]], on_drop: Mapping[str, str]) -> Width:
    """The channels between the first convolution and the second, and those behind that where there is a third."""
    (conv, norm), (following, its_norm) = layers[:2]
    return Width(
        kind="conv",
        groups=present[conv].out_channels,
        producers=(Slice(conv, 1, 0), Slice(norm, 1, 0)),
        consumer=Slice(following, 1, 1),
        on_drop=on_drop,
        config={"inner_channels": 1},
        norm=its_norm,
        behind=_between(present, layers[1:], {}) if len(layers) > 2 else None,
    )


def fits(model: nn.Module) -> bool:
    """Whether all of a module's blocks are basic ones or bottlenecks, and cut whole."""
    stages = [stage for name, stage in model.named_children() if name.startswith("layer")]
    blocks = [block for stage in stages for block in stage.children()]
    return bool(blocks) and all(map(_residual, blocks))


def _residual(block: nn.Module) -> bool:
    parts = dict(block.named_children())
    layers = [pair for pair in PLAIN if pair[0] in parts or pair[1] in parts]
    return len(layers) >= 2 and all(_convolves(parts.get(conv), parts.get(norm)) for conv, norm in layers)


def _convolves(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    plain = isinstance(conv, nn.Conv2d) and conv.groups == 1
    return plain and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats


FAMILY = Family(name="resnet", model_types=(), blocks="layer*.*", widths=widths, task="images", fits=fits)
HUGGING_FACE = Family(
    name="resnet-hf", model_types=("resnet",), blocks="resnet.encoder.stages.*.layers.*", widths=widths, task="images"
)
