"""Operations of a traced graph that treat every channel by itself, and where they leave the channels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from autoprune.models.tracing import Trace

ELEMENTWISE = {
    "contiguous", "dropout", "dropout2d", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "identity",
    "leakyrelu", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "tanh",
}  # fmt: skip
POOLING = {"maxpool2d", "avgpool2d", "adaptiveavgpool2d", "adaptivemaxpool2d"}


@dataclass(frozen=True)
class Place:
    """Where channels are.

    Args:
        dim: the dimension that counts them.
        size: neighbouring entries there that belong to one.
    """

    dim: int
    size: int = 1


def name_of(node: Node) -> str:
    """What a node does in one word, a module's, function's or method's of torch: `adaptiveavgpool2d`; else nothing."""
    target: Any = node.target
    word: str = node.meta.get("calls", "")
    if node.op == "call_method":
        word = str(target)
    elif node.op == "call_function":
        home = (getattr(target, "__module__", None) or "torch").partition(".")[0]
        word = target.__name__ if home in ("torch", "_operator", "builtins") else ""
    return word.lower().replace("_", "")


def through(trace: Trace, before: Node, node: Node, place: Place) -> Place | None:
    """Where channels of `before` are in `node`, which reads it; None where it mixes them, or nobody knows."""
    operation = _OPERATIONS.get(name_of(node))
    if operation is None or node.args[:1] != (before,) or node.meta["shape"] is None:
        return None
    return operation(trace, before.meta["shape"], node, place)


def _same(trace: Trace, shape: tuple[int, ...], node: Node, place: Place) -> Place | None:
    return place if len(node.all_input_nodes) == 1 else None


def _pooled(trace: Trace, shape: tuple[int, ...], node: Node, place: Place) -> Place | None:
    return place if place == Place(1) and len(shape) == 4 else None


def _normalised(trace: Trace, shape: tuple[int, ...], node: Node, place: Place) -> Place | None:
    module: Any = trace.modules.get(node)
    if module is None or not module.track_running_stats or not module.affine or hooked(module):
        return None
    return place if place.dim == 1 and len(shape) in (2, 4) else None


def _depthwise(trace: Trace, shape: tuple[int, ...], node: Node, place: Place) -> Place | None:
    module: Any = trace.modules.get(node)
    if module is None or not plain(module) or place != Place(1) or len(shape) != 4:
        return None
    return place if 1 < module.groups == module.in_channels == module.out_channels else None


def _averaged(trace: Trace, shape: tuple[int, ...], node: Node, place: Place) -> Place | None:
    """`mean` over other dimensions than the channels'."""
    dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    gone = {dim % len(shape) for dim in (dims if isinstance(dims, tuple | list) else [dims]) if isinstance(dim, int)}
    if not gone or gone & {0, place.dim}:
        return None
    keeps = len(node.meta["shape"]) == len(shape)
    return place if keeps else Place(place.dim - sum(dim < place.dim for dim in gone), place.size)


def _flattened(trace: Trace, shape: tuple[int, ...], node: Node, place: Place) -> Place | None:
    """All but the first dimension become one, by `flatten` or a `view` of so many columns as there are."""
    if place.dim != 1 or node.meta["shape"] != (shape[0], math.prod(shape[1:])):
        return None
    arguments: Any = (*node.args[1:], *node.kwargs.values())
    sizes = arguments[0] if arguments and isinstance(arguments[0], tuple | list) else arguments
    counted = name_of(node) != "flatten" and (len(sizes) != 2 or sizes[1] != -1)  # columns in numbers: no others fit
    return None if counted else Place(1, place.size * math.prod(shape[2:]))


def hooked(module: nn.Module) -> bool:
    """Whether something else computes a module's weight or changes its output, as torch.nn.utils.prune does."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def plain(module: nn.Module) -> bool:
    """Whether a module is a convolution that pads with zeros, in numbers, as what unfolds its inputs does."""
    if type(module) is not nn.Conv2d or hooked(module):
        return False
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


_OPERATIONS: dict[str, Callable[[Trace, tuple[int, ...], Node, Place], Place | None]] = {
    **dict.fromkeys(ELEMENTWISE, _same),
    **dict.fromkeys(POOLING, _pooled),
    **dict.fromkeys(("batchnorm1d", "batchnorm2d"), _normalised),
    "conv2d": _depthwise,
    "mean": _averaged,
    **dict.fromkeys(("flatten", "view", "reshape"), _flattened),
}
