"""Stand-ins for the modules of a dropped sub-block.

A stand-in whose output is only read by other stand-ins gives a single channel, so that a dropped sub-block does not
take the memory and time of its inner zeros.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.cutting.layers import of_columns, of_rows
from autoprune.cutting.products import is_plain


class Zero(nn.Module):
    """A dropped sub-block: adds nothing to the residual stream."""

    def __init__(self, dropped: nn.Module) -> None:
        super().__init__()

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Zeros like the input."""
        return torch.zeros_like(hidden_states)


class ZeroAttention(nn.Module):
    """A dropped attention, which in transformers returns its weights too."""

    def __init__(self, dropped: nn.Module) -> None:
        super().__init__()

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """Zeros like the input, and no weights."""
        return torch.zeros_like(hidden_states), None


class ZeroConvolution(nn.Module):
    """A dropped convolution: zeros of the shape that it gave.

    Args:
        dropped: the convolution.
        narrow: one channel is enough.
    """

    def __init__(self, dropped: nn.Module, narrow: bool = False) -> None:
        super().__init__()
        conv: Any = dropped
        self._sides = None if is_plain(dropped) else (one_channel(dropped),)  # in a tuple, so that it is no submodule
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}
        # by the names that a convolution has, since blocks may read them (MobileNetV2's padding)
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self.padding, self.dilation = conv.padding, conv.dilation
        self.out_channels = 1 if narrow else conv.out_channels

    def forward(self, hidden: Tensor) -> Tensor:
        """`[B, channels, height, width]`."""
        if self._sides is not None:
            return hidden.new_zeros(hidden.shape[0], self.out_channels, *self._asked(hidden))
        sides = zip(hidden.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        return hidden.new_zeros(
            hidden.shape[0], self.out_channels, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
        )

    def _asked(self, hidden: Tensor) -> tuple[int, ...]:
        """Sides of the output where the convolution has its own way to pad, which it is asked once."""
        before = tuple(hidden.shape[2:])
        if before not in self._known:
            assert self._sides is not None
            with torch.no_grad():
                self._known[before] = tuple(self._sides[0](torch.zeros(1, 1, *before)).shape[2:])
        return self._known[before]


def one_channel(conv: nn.Module) -> nn.Module:
    """A copy of a convolution that reads and writes a single channel, on the CPU in float32."""
    weight: Tensor = getattr(conv, "weight")
    first = torch.zeros(1, dtype=torch.long, device=weight.device)
    own: Any = of_columns(of_rows(conv, first, len(weight)), first)
    own.groups = 1
    small: nn.Module = copy.deepcopy(own).cpu().float()
    return small


class ZeroLinear(nn.Module):
    """A dropped linear layer: zeros of the shape that it gave.

    Args:
        dropped: the layer.
        narrow: one feature is enough.
    """

    def __init__(self, dropped: nn.Module, narrow: bool = False) -> None:
        super().__init__()
        linear: Any = dropped
        self.out_features: int = 1 if narrow else linear.out_features

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., features]`."""
        return hidden.new_zeros(*hidden.shape[:-1], self.out_features)


STAND_INS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "zero": Zero,
    "zero-attention": ZeroAttention,
    "zero-convolution": ZeroConvolution,
    "zero-linear": ZeroLinear,
    "narrow-convolution": partial(ZeroConvolution, narrow=True),
    "narrow-linear": partial(ZeroLinear, narrow=True),
    "identity": lambda dropped: nn.Identity(),
}
