"""Nodes of a traced graph: their names, and their results for other values."""

import math
import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.fx import Node
from torch.fx.node import map_arg

from autoprune.cutting.products import hooked
from autoprune.networks.tracing import Trace


def is_layer(trace: Trace, node: Node) -> bool:
    """Whether a node is a convolution or linear layer in which each output reads all inputs."""
    module = trace.modules.get(node)
    if node.kwargs or len(node.args) != 1 or not isinstance(node.args[0], Node):
        return False
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and not hooked(module)
    return isinstance(module, nn.Linear) and not hooked(module)


@torch.no_grad()
def keeps_zeros(trace: Trace, node: Node) -> bool:
    """Whether an operation on one tensor gives as many zeros for zeros."""
    sources, shape = node.all_input_nodes, node.meta["shape"]
    if node.op == "output" or len(sources) != 1 or shape is None:
        return False
    if math.prod(shape) != math.prod(sources[0].meta["shape"] or ()):
        return False
    like = next(trace.whole.parameters())
    zeros = torch.zeros(sources[0].meta["shape"], dtype=sources[0].meta["dtype"], device=like.device)
    return not bool(called(trace, node, {sources[0]: zeros}.__getitem__).any())


def called(trace: Trace, node: Node, value: Callable[[Node], Any], module: nn.Module | None = None) -> Any:
    """The result of a node for given results of its sources, with its own module or with a replacement."""
    args, kwargs, target = map_arg(node.args, value), map_arg(node.kwargs, value), cast(Any, node.target)
    if node.op == "call_module":
        own: Callable[..., Any] = module or trace.whole.get_submodule(str(target))
        return own(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(target))(*args[1:], **kwargs)
    function: Any = {operator.iadd: operator.add, operator.imul: operator.mul}.get(
        target, target
    )  # nothing is written over
    return function(*args, **kwargs)


def name_of(node: Node) -> str:
    """The name of a node's module, function or method, in one word: `adaptiveavgpool2d`."""
    target: Any = node.target
    word = node.meta.get("calls") or (target if node.op == "call_method" else getattr(target, "__name__", ""))
    return str(word).lower().replace("_", "")
