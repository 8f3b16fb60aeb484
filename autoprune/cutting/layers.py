"""Copies of layers with fewer channels, and a comparison of results."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.cutting.layouts import layout_of

EXACT, HALF, TINY = 1e-4, 3e-2, 1e-30
"""Tolerances for equal results, in float32 and in half precision, and the smallest scale."""


def written(module: nn.Module, entries: int) -> list[str]:
    """Names of a module's tensors that have a row for each of so many channels that it writes."""
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return [name for name, tensor in own if tensor.dim() and len(tensor) == entries]


def of_rows(module: nn.Module, index: Tensor, entries: int) -> nn.Module:
    """A copy of a module that writes only these channels. The module itself is not changed."""
    names = written(module, entries)
    return _altered(module, {name: (lambda tensor: tensor.index_select(0, index)) for name in names})


def of_columns(module: nn.Module, index: Tensor) -> nn.Module:
    """A copy of a module that reads only these inputs."""
    return _altered(module, {"weight": lambda tensor: tensor.index_select(1, index)})


def blind(module: nn.Module, index: Tensor) -> nn.Module:
    """A copy of a module that reads all inputs, with zeros in its weight for all except these."""

    def zeroed(weight: Tensor) -> Tensor:
        return torch.zeros_like(weight).index_copy(1, index, weight.index_select(1, index))

    return _altered(module, {"weight": zeroed})


def alike(one: Any, other: Any) -> bool:
    """Whether two results are equal except for rounding, because sums may be taken in another order."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    tolerance = EXACT if one.dtype == torch.float32 else HALF
    scale = float(one.abs().nan_to_num(0, 0, 0).max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance * max(scale, TINY), equal_nan=True)


def _altered(module: nn.Module, changes: dict[str, Callable[[Tensor], Tensor]]) -> nn.Module:
    twin = copy.copy(module)
    own = vars(twin)
    own["_parameters"], own["_buffers"] = dict(module._parameters), dict(module._buffers)
    for name, change in changes.items():
        where = own["_parameters"] if name in own["_parameters"] else own["_buffers"]
        changed = change(where[name].detach())
        where[name] = nn.Parameter(changed, requires_grad=False) if where is own["_parameters"] else changed
    layout_of(module).follow(twin)
    return twin
