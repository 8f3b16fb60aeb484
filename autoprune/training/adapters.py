"""Low-rank adapters (Hu et al. 2021): `W + alpha / rank * up @ down`. Only `up` and `down` are trained.

Linear layers (nn.Linear, transformers' transposed Conv1D) and convolutions without groups get one. Output embeddings
do not, because they share their weight with the input. A hook adds the adapter's output, so layers keep their names and
a merged network has the same form as before.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.errors import UserError
from autoprune.training.frozen import frozen, stays
from autoprune.training.zeros import mask_of


class Adapter(nn.Module):
    """What is added to the output of one layer: nothing at first, since `up` is 0.

    Args:
        layer: a linear layer or a convolution.
        rank: of what is added; the layer's own bounds it.
        alpha: what is added counts `alpha / rank` times.
        draw: of `down`.
    """

    def __init__(self, layer: Any, rank: int, alpha: float, draw: torch.Generator) -> None:
        super().__init__()
        # not the layer itself, of which this is a part
        self.geometry: Any = (layer.stride, layer.padding, layer.dilation) if isinstance(layer, nn.Conv2d) else None
        self.transposed = is_transposed(layer)
        shape = layer.weight.shape[::-1] if self.transposed else layer.weight.shape
        self.scale, rank = alpha / rank, min(rank, shape[0], math.prod(shape[1:]))
        down = torch.randn(rank, *shape[1:], generator=draw) / math.prod(shape[1:]) ** 0.5
        self.down = nn.Parameter(down.to(layer.weight.device))
        up = torch.zeros(shape[0], rank, *[1] * (len(shape) - 2))
        self.up = nn.Parameter(up.to(layer.weight.device))
        self.mask = mask_of(layer)  # weights that stay zero get nothing

    def forward(self, x: Tensor) -> Tensor:
        """As the layer takes and gives."""
        if self.mask is not None:
            weight = self._product()
            if self.geometry is None:
                return functional.linear(x, weight.T if self.transposed else weight)
            return functional.conv2d(x, weight, None, *self.geometry)
        if self.geometry is None:
            return self.scale * functional.linear(functional.linear(x, self.down), self.up)
        inner = functional.conv2d(x, self.down, None, *self.geometry)
        return self.scale * functional.conv2d(inner, self.up)

    @torch.no_grad()
    def product(self) -> Tensor:
        """The same as a weight, in the layout of the layer's."""
        return self._product()

    def _product(self) -> Tensor:
        weight = self.scale * (self.up.flatten(1) @ self.down.flatten(1))
        weight = weight.T if self.transposed else weight.view(len(self.up), *self.down.shape[1:])
        return weight if self.mask is None else weight * self.mask


def attach(network: nn.Module, rank: int, alpha: float, seed: int) -> None:
    """Give every layer that can have one an adapter, and let nothing else be trained.

    Raises:
        UserError: there is no such layer.
    """
    network.requires_grad_(False)
    draw = torch.Generator().manual_seed(seed)
    layers = list(_adaptable(network))
    if not layers:
        why = " (weights of few bits stay as they are)" if frozen(network) else ""
        raise UserError(f"nothing is left of the network that adapters could be trained for{why}: leave --lora.")
    for layer in layers:
        layer.adapter = Adapter(layer, rank, alpha, draw)
        layer.adapter.hook = layer.register_forward_hook(_added)


def fit(network: nn.Module) -> bool:
    """Whether any layer can have an adapter."""
    return next(_adaptable(network), None) is not None


@torch.no_grad()
def merged(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights with adapters, by name, as `merge` would leave them. The network stays as it is."""
    for name, layer in network.named_modules():
        if isinstance(getattr(layer, "adapter", None), Adapter):
            held: Any = layer
            yield f"{name}.weight", (held.weight.float() + held.adapter.product()).to(held.weight.dtype)


def is_part_of_one(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return ".adapter." in name


@torch.no_grad()
def merge(network: nn.Module) -> None:
    """Add what adapters give to the weights, in float32 and rounded once, and take the adapters away."""
    for layer in [layer for layer in network.modules() if isinstance(getattr(layer, "adapter", None), Adapter)]:
        held: Any = layer
        held.weight.data = (held.weight.float() + held.adapter.product()).to(held.weight.dtype)
        held.adapter.hook.remove()
        del held.adapter


def _adaptable(network: Any) -> Iterator[Any]:
    head = network.get_output_embeddings() if hasattr(network, "get_output_embeddings") else None
    for layer in network.modules():
        linear = (isinstance(layer, nn.Linear) or is_transposed(layer)) and layer is not head
        plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
        if (linear or plain) and layer.weight.numel() and not stays(layer):
            yield layer


def is_transposed(layer: nn.Module) -> bool:
    """Whether it is a Conv1D of transformers, which is not imported for that."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def _added(layer: Any, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    added: Tensor = layer.adapter(args[0])
    return out + added
