"""Finds the product that a layer computes by running it.

A subclass of a convolution may pad in its own way or compute its weight, so its forward is observed. In this way every
padding is supported: one that depends on the image ("same"), a causal or a reflecting one.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

ARGUMENTS: dict[Any, tuple[str, ...]] = {
    functional.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    functional.linear: ("input", "weight", "bias"),
}
"""What is looked for: products with a weight."""


@dataclass(frozen=True)
class Product:
    """A product of a layer's own weight, which gives the layer's output.

    Args:
        read: what it multiplies, as the layer has padded it.
        stride, dilation: of a convolution.
    """

    read: Tensor
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)


class _Watched(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[dict[str, Any], Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in ARGUMENTS:
            self.seen.append((dict(zip(ARGUMENTS[func], args, strict=False)) | (kwargs or {}), out))
        return out


def product_of(layer: nn.Module, inputs: Tensor) -> Product | None:
    """The product that gives a layer's output; None if the layer does more or multiplies with something else."""
    with _Watched() as watched:
        out = layer(inputs)
    if len(watched.seen) != 1 or watched.seen[0][1] is not out:
        return None
    given = watched.seen[0][0]
    own: Any = layer
    if given["weight"] is not own.weight or given.get("bias") is not own.bias:
        return None
    if "stride" not in given and own.weight.dim() == 2:
        return Product(given["input"])
    stride, dilation = _pair(given.get("stride", 1)), _pair(given.get("dilation", 1))
    sides = own.weight.shape[2:]
    return Product(_padded(given["input"], given.get("padding", 0), sides, dilation), stride, dilation)


def patches(conv: Any, inputs: Tensor) -> Tensor:
    """What a convolution's matrix multiplies at each position, `[N, positions, channels * kernel]`."""
    if is_plain(conv):
        found = functional.unfold(inputs, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    else:
        product = product_of(conv, inputs)
        assert product is not None  # nothing else is a consumer
        found = functional.unfold(product.read, conv.weight.shape[2:], product.dilation, 0, product.stride)
    return found.transpose(1, 2)


def is_plain(conv: nn.Module) -> bool:
    """Whether a module is torch's own convolution, which pads with zeros by numbers."""
    return type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def hooked(module: nn.Module) -> bool:
    """Whether hooks compute a module's weight or change its output, as torch.nn.utils.prune does."""
    return bool(module._forward_pre_hooks or module._forward_hooks) or is_parametrized(module)


def is_depthwise(module: nn.Module) -> bool:
    """Whether it is a convolution of each channel by itself."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels


def _pair(value: Any) -> tuple[int, int]:
    first, *others = value if isinstance(value, tuple | list) else (value,)
    return int(first), int(others[0] if others else first)


def _padded(inputs: Tensor, padding: Any, sides: Any, dilation: tuple[int, int]) -> Tensor:
    """As a convolution would pad it: by numbers, or by a word of torch's."""
    if isinstance(padding, str):
        total = [d * (side - 1) if padding == "same" else 0 for d, side in zip(dilation, sides, strict=True)]
        begins = [some // 2 for some in total]
        ends = [some - begin for some, begin in zip(total, begins, strict=True)]
    else:
        begins = ends = list(_pair(padding))
    return functional.pad(inputs, (begins[1], ends[1], begins[0], ends[0]))
