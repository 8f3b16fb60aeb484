"""What stands in the place of a dropped sub-block instead of nothing: a constant, or a linear map of what it read.

A map reads its input divided by the root of its mean square, as the sub-block's own norm would have it, because the
residual stream grows with the depth and has a few very large values.

Shapes: O outputs, D inputs, R rank.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from autoprune.cutting.live import LiveWidth
from autoprune.cutting.widths import Width

HOSTS = ("zero", "zero-attention")
"""The stand-ins that a map can take the place of: what they give is added to the residual stream."""

EPS = 1e-6
"""Added to the mean square of what a map reads."""


class Constant(nn.Module):
    """A dropped sub-block that adds the same to every position.

    Args:
        bias: `[O]`.
        attention: whether it is an attention, which in transformers returns its weights too.
    """

    def __init__(self, bias: Tensor, attention: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias, requires_grad=False)
        self._attention = attention

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        """The constant at every position."""
        constant = self.bias.expand(*hidden_states.shape[:-1], -1)
        return (constant, None) if self._attention else constant


class LinearMap(nn.Module):
    """A dropped sub-block that adds a linear map of what it reads, and a constant.

    Args:
        bias: `[O]`.
        up: `[O, D]`, or `[O, R]` behind `down`.
        down: `[R, D]`; None where there is one matrix.
        attention: as of `Constant`.
    """

    def __init__(self, bias: Tensor, up: Tensor, down: Tensor | None, attention: bool) -> None:
        super().__init__()
        self.down = None if down is None else _linear(down)
        self.up = _linear(up, bias)
        self._attention = attention

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        """The map at every position."""
        read = normed(hidden_states)
        mapped = self.up(read if self.down is None else self.down(read))
        return (mapped, None) if self._attention else mapped


def normed(hidden: Tensor) -> Tensor:
    """What a map reads of the input: divided by the root of its mean square, computed in float32, `[..., D]`."""
    scaled: Tensor = functional.rms_norm(hidden.float(), hidden.shape[-1:], eps=EPS)
    return scaled.to(hidden.dtype)


def host_of(width: Width) -> str | None:
    """The path of the module whose place a map can take; None where a width has none, as inside a convolution."""
    hosts = [path for path, stand_in in width.on_drop.items() if stand_in in HOSTS]
    return hosts[0] if len(hosts) == 1 and width.droppable else None


def replacement(width: Width, tensors: Mapping[str, Tensor]) -> nn.Module:
    """What takes the place of a width's sub-block.

    Args:
        width: it has a host.
        tensors: `bias`, and `up` and `down` where the kind of map has them.
    """
    host = host_of(width)
    assert host is not None
    attention = width.on_drop[host] == "zero-attention"
    if "up" not in tensors:
        return Constant(tensors["bias"], attention)
    return LinearMap(tensors["bias"], tensors["up"], tensors.get("down"), attention)


def replace(width: LiveWidth, tensors: Mapping[str, Tensor]) -> None:
    """Put a constant or a map in the place of a width's sub-block, which is dropped.

    Args:
        width: it has a host.
        tensors: as of `replacement`.
    """
    host = host_of(width.width)
    assert host is not None
    width.dropping.replace(host, replacement(width.width, tensors))


def shapes(hidden: int, rank: int | None) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a map by name.

    Args:
        hidden: O and D.
        rank: R; None is a full matrix, 0 a constant alone.
    """
    if rank is None:
        return {"bias": (hidden,), "up": (hidden, hidden)}
    return {"bias": (hidden,)} | ({"up": (hidden, rank), "down": (rank, hidden)} if rank else {})


def empty(hidden: int, rank: int | None, like: Tensor) -> dict[str, Tensor]:
    """Tensors of a map, all zeros.

    Args:
        hidden: O and D.
        rank: as of `shapes`.
        like: of the dtype and on the device that they are to have.
    """
    return {name: like.new_zeros(shape) for name, shape in shapes(hidden, rank).items()}


def described(width: LiveWidth) -> dict[str, Any] | None:
    """What is in the place of a width's sub-block, as configurations say it; None where nothing is.

    `{"map": "constant"}`, `{"map": "full"}`, or `{"map": "rank", "rank": 16}`.
    """
    module = width.dropping.replacement
    if module is None:
        return None
    if isinstance(module, Constant):
        return {"map": "constant"}
    assert isinstance(module, LinearMap)
    return {"map": "full"} if module.down is None else {"map": "rank", "rank": module.down.out_features}


def replace_as(width: LiveWidth, said: Any) -> None:
    """Put zeros of the shape that a configuration says in the place of a width's sub-block, which is dropped.

    Raises:
        ValueError: it does not say a map, or the width cannot have one.
    """
    kind, rank = (said.get("map"), said.get("rank")) if isinstance(said, Mapping) else (None, None)
    numbers = {"constant": 0, "full": None, "rank": rank}
    whole = isinstance(rank, int) and rank > 0
    if host_of(width.width) is None or kind not in numbers or (kind == "rank" and not whole):
        raise ValueError(f"{said!r} is no map in the place of the {width.width.kind}")
    weight = width.consumer_weight
    replace(width, empty(len(weight), numbers[kind], weight))


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with these tensors, which takes no memory besides."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer
