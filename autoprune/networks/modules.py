"""Plain torch modules, made by a user's function: `package.module:function` or `file.py:function`."""

import hashlib

import torch
from torch import nn

from autoprune import live, registry, usercode
from autoprune.errors import UserError
from autoprune.networks.family import Family
from autoprune.networks.loading import LoadedModel, compute_dtype

TRACED = "traced"
"""The family of what no other covers."""


def load_module(name: str, device: str = "cpu", dtype: str = "auto") -> LoadedModel:
    """Call the function, and find the family that its module is of.

    Args:
        name: of the function, which takes nothing and returns the trained network.
        device: where it is computed.
        dtype: what to compute in; `auto` is the module's own.

    Raises:
        UserError: no such function, it raises an exception or returns no module, or a parameter belongs to two of its
            parts.
    """
    make = registry.load("models", name)
    model = usercode.call("model", make)
    if not isinstance(model, nn.Module):
        raise UserError(f"the model {usercode.located(make)} returns a {type(model).__name__}, and no torch.nn.Module.")
    _check_shared(model)
    family = family_of_module(model)
    own = next(model.parameters()).dtype
    compute = own if dtype == "auto" else compute_dtype(dtype, device, own)
    model = model.to(device, compute).eval().requires_grad_(False)
    count = sum(parameter.numel() for parameter in model.parameters())
    digest = name.rpartition("_")[2] if live.is_live(name) else _digest(model)
    return LoadedModel(model, None, family, name, own, count, digest)


def family_of_module(model: nn.Module) -> Family:
    """The family that a plain module is of; one that no family covers will be traced (networks/tracing.py)."""
    families = [registry.load("families", name) for name in registry.names("families")]
    fitting: list[Family] = [family for family in families if family.fits and family.fits(model)]
    return next(iter(fitting), registry.load("families", TRACED))


def _check_shared(model: nn.Module) -> None:
    seen: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            raise UserError(
                f"the model's '{name}' and '{seen[id(parameter)]}' are one parameter: what two parts share cannot be "
                "cut in one of them."
            )
        seen[id(parameter)] = name
    if not seen:
        raise UserError("the model has no parameters: there is nothing to prune.")


def _digest(model: nn.Module) -> str:
    """Hash of a module's weights and buffers, 16 hex digits."""
    sha = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
