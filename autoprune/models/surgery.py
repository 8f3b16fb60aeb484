"""Cutting a width out of a live block: one generic piece of code for every family.

A family declares `Width`s; here they are permuted, sliced, counted, dropped and put back. A `LiveWidth` keeps the
dense tensors and swaps views of them in and out of the block's parameters, so that a level costs no copy.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.space import Unit


@dataclass(frozen=True)
class Slice:
    """A dimension of a module's weight that follows a width.

    Args:
        module: path of the module in the block.
        size: entries of that dimension that belong to one group (in each part): rows or columns, channels.
        dim: the dimension of `weight`.
        parts: how many blocks of `groups * size` entries stand one after another (3 in a fused q|k|v).
    """

    module: str
    size: int
    dim: int
    parts: int = 1


@dataclass(frozen=True)
class Width:
    """An internal width of a block: what `producers` write and `consumer` reads.

    Args:
        kind: attention, mlp, ...; with the block's index it names the unit.
        groups: removable pieces.
        producers: weights (and biases) whose output shrinks with the width.
        consumer: the weight whose input shrinks; its bias stays while anything is kept.
        on_drop: module path -> "zero", "zero-attention" or "identity": what stands there when nothing is kept.
        attributes: path of an integer attribute in the block -> its value for each kept group.
        config: configuration attribute of the layer -> its value for each kept group.
        context_macs: multiply-accumulates of one group per token and context position (attention scores).
        cache: entries of the cache of keys and values of one group and position.
        norm: path of the BatchNorm that reads the consumer, whose statistics depend on what is kept.
    """

    kind: str
    groups: int
    producers: tuple[Slice, ...]
    consumer: Slice
    on_drop: Mapping[str, str]
    attributes: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, int] = field(default_factory=dict)
    context_macs: int = 0
    cache: int = 0
    norm: str | None = None


CONVOLUTION = 4
"""Dimensions of a convolution's weight, and of what it reads."""


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
    """A dropped convolution: zeros of the shape that it gave."""

    def __init__(self, dropped: nn.Module) -> None:
        super().__init__()
        conv: Any = dropped
        self.channels, self.kernel, self.stride = conv.out_channels, conv.kernel_size, conv.stride
        self.padding, self.dilation = conv.padding, conv.dilation

    def forward(self, hidden: Tensor) -> Tensor:
        """`[B, channels, height, width]`."""
        sides = zip(hidden.shape[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return hidden.new_zeros(
            hidden.shape[0], self.channels, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
        )


STAND_INS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "zero": Zero,
    "zero-attention": ZeroAttention,
    "zero-convolution": ZeroConvolution,
    "identity": lambda dropped: nn.Identity(),
}
FOLLOWS = ("weight", "bias", "running_mean", "running_var")
"""What follows a width in the modules that write it, where they have it."""


class LiveWidth:
    """A width of a live block, and the levels that are swapped into it.

    Args:
        block: the block, whose parameters are replaced in place.
        width: what to cut.

    Attributes:
        bring: gives a consumer's weight where this width's tensors are, which `move` changes (models/streaming.py).
        in_place: the consumer's weight that was given with what is kept now.
        positions: module path -> outputs of a convolution for one image, along both sides (models/images.py).
    """

    def __init__(self, block: nn.Module, width: Width) -> None:
        self.block, self.width = block, width
        self.kept = width.groups
        self._modules = {s.module: block.get_submodule(s.module) for s in (*width.producers, width.consumer)}
        self._dropped = {path: block.get_submodule(path) for path in width.on_drop}
        self._tensors = {
            (path, name): parameter.data
            for path, module in self._modules.items()
            for name, parameter in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            if parameter.dim()
        }
        norm: Any = block.get_submodule(width.norm) if width.norm else None
        self._norm = norm
        # aliases, since the buffers themselves are given other memory
        self._statistics: Any = (norm.running_mean.data, norm.running_var.data) if width.norm else None
        self.positions: dict[str, int] = {}
        self.bring: Callable[[Tensor], Tensor] = _as_it_is
        self.in_place: Tensor | None = None
        self._index: Tensor | None = None  # what `select` kept

    @property
    def tensors(self) -> Mapping[tuple[str, str], Tensor]:
        """(module path, parameter name) -> dense tensor, wherever it is now."""
        return self._tensors

    @property
    def nbytes(self) -> int:
        """Bytes of the dense tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors.values())

    def copied_bytes(self, masks: bool) -> int:
        """Bytes at most that keeping something copies: with masks everything, otherwise only fused projections."""
        fused = {s.module for s in self.width.producers if masks or s.parts > 1}
        fused |= {self.width.consumer.module} if masks else set()
        return sum(t.numel() * t.element_size() for (path, _), t in self._tensors.items() if path in fused)

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the dense tensors or views of them are put into."""
        return [getattr(self._modules[path], name) for path, name in self._tensors]

    def move(self, tensors: Mapping[tuple[str, str], Tensor]) -> None:
        """Compute with copies of the dense tensors that are elsewhere from now on; what is kept stays as it is."""
        self._tensors = dict(tensors)
        for (path, name), tensor in tensors.items():  # those of a dropped sub-block would hold on to the old ones
            getattr(self._modules[path], name).data = tensor
        if self._index is None:
            self.keep(self.kept, self.in_place)
        else:
            self.select(self._index, self.in_place)

    @property
    def consumer(self) -> nn.Module:
        """The module whose input is this width."""
        return self._modules[self.width.consumer.module]

    @property
    def consumer_weight(self) -> Tensor:
        """The consumer's dense weight with the width last, `[out, groups * size]`: a view."""
        weight = self._tensors[self.width.consumer.module, "weight"]
        if weight.dim() == CONVOLUTION:
            return weight.flatten(1)
        return weight if self.width.consumer.dim == weight.dim() - 1 else weight.transpose(0, 1)

    def laid_out(self, weight_OK: Tensor) -> Tensor:
        """A consumer's weight with the width last in the layout of its module."""
        weight = self._tensors[self.width.consumer.module, "weight"]
        if weight.dim() == CONVOLUTION:
            return weight_OK.reshape(len(weight_OK), -1, *weight.shape[2:])
        return weight_OK if self.width.consumer.dim == 1 else weight_OK.T

    def matrix(self, weight: Tensor) -> Tensor:
        """The other way: `[out, kept * size]`."""
        if weight.dim() == CONVOLUTION:
            return weight.flatten(1)
        return weight if self.width.consumer.dim == 1 else weight.T

    def read(self, inputs: Tensor) -> Tensor:
        """What the consumer's matrix multiplies, a row a position, `[N, D]`; a 1 behind each where there is a norm."""
        conv: Any = self.consumer
        if inputs.dim() == CONVOLUTION:
            patches = functional.unfold(inputs, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
            inputs = patches.transpose(1, 2)
        x_ND = inputs.reshape(-1, inputs.shape[-1])
        return x_ND if self._norm is None else torch.cat([x_ND, x_ND.new_ones(len(x_ND), 1)], dim=1)

    def moments(self, h_DD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Second moments of the consumer's inputs, and their means `[D]` where there is a norm, of what `read` gave."""
        if self._norm is None:
            return h_DD, None
        h_DD = h_DD / h_DD[-1, -1].clamp_min(1e-300)
        return h_DD[:-1, :-1], h_DD[:-1, -1]

    @property
    def statistics(self) -> tuple[Tensor, Tensor] | None:
        """Mean and variance of the dense consumer's outputs, as the norm has them; None without one."""
        statistics: tuple[Tensor, Tensor] | None = self._statistics
        return statistics

    def weights(self) -> list[Tensor]:
        """The dense weight matrices that follow this width, producers before the consumer."""
        named = [self._tensors[s.module, name] for name, s in self._sliced() if name == "weight"]
        return [weight for weight in named if weight.dim() > 1]

    def unit(self, block: int, kept: tuple[int, ...]) -> Unit:
        """The numbers of this width as a `Unit` of the search space (torch-free)."""
        counted = [(name, s) for name, s in self._sliced() if name in ("weight", "bias")]
        sliced = sum(self._group_numel(name, s) for name, s in counted)
        matrices = [(name, s) for name, s in counted if self._tensors[s.module, name].dim() > 1]
        weights = sum(self._group_numel(name, s) * self.positions.get(s.module, 1) for name, s in matrices)
        inside = {id(p): p.numel() for module in self._dropped.values() for p in module.parameters()}
        inside |= {id(p): p.numel() for module in self._modules.values() for p in module.parameters(recurse=False)}
        return Unit(
            name=f"{block}.{self.width.kind}", kind=self.width.kind, block=block, groups=self.width.groups, kept=kept,
            group_params=sliced, fixed_params=sum(inside.values()) - sliced * self.width.groups,
            group_macs=weights, context_macs=self.width.context_macs, group_cache=self.width.cache,
            matrices=len(self.weights()),
        )  # fmt: skip

    def permute(self, order: Tensor) -> None:
        """Put the groups in `order`, most important first, so that a level is a prefix. Changes no output."""
        for name, s in self._sliced():
            tensor = self._tensors[s.module, name]
            dim = s.dim if name == "weight" else 0
            index = _entries(order.to(tensor.device), s, self.width.groups)
            self._tensors[s.module, name] = tensor.index_select(dim, index)
        self.keep(self.kept)

    def keep(self, groups: int, consumer: Tensor | None = None, norm: Tensor | None = None) -> None:
        """Keep the first `groups` groups: views are swapped in, or the sub-block is dropped at 0.

        Args:
            consumer: the consumer's weight at this level, in its own layout, if it was reconstructed.
            norm: mean and variance of the consumer's outputs at this level, `[2, out]`; None is the dense network's.
        """
        self._index = None
        if self._norm is not None:
            self._norm.running_mean.data, self._norm.running_var.data = self._statistics if norm is None else norm
        prefixes = (
            (name, s, self._prefix(self._tensors[s.module, name], name, s, groups)) for name, s in self._sliced()
        )
        self._put(groups, prefixes, consumer)

    def select(self, index: Tensor, consumer: Tensor | None = None) -> None:
        """Keep any groups, by their number in the present order, ascending: their rows and columns are copied.

        Args:
            index: `[K]` int64.
            consumer: the consumer's weight for these groups, in its own layout, if it was reconstructed.
        """
        self._index = index
        copies = (
            (name, s, self._gathered(self._tensors[s.module, name], name, s, index)) for name, s in self._sliced()
        )
        self._put(len(index), copies, consumer)

    def _put(self, groups: int, tensors: Iterable[tuple[str, Slice, Tensor]], consumer: Tensor | None) -> None:
        """Swap tensors of `groups` groups in, or stand-ins for the sub-block at 0, which needs none."""
        if (groups == 0) != (self.kept == 0):
            for path, stand_in in self.width.on_drop.items():
                _set_module(
                    self.block, path, self._dropped[path] if groups else STAND_INS[stand_in](self._dropped[path])
                )
        self.kept, self.in_place = groups, consumer
        if groups == 0:
            getattr(self.consumer, "weight").data = self._tensors[self.width.consumer.module, "weight"]  # lets go
            return
        for name, s, tensor in tensors:
            getattr(self._modules[s.module], name).data = tensor
        if consumer is not None:
            getattr(self.consumer, "weight").data = self.bring(consumer)
        bias = self._tensors.get((self.width.consumer.module, "bias"))
        if bias is not None:
            getattr(self.consumer, "bias").data = bias  # padding a dropped sub-block had put zeros there
        for module in self._modules.values():
            _follow_shape(module)
        for path, per_group in self.width.attributes.items():
            owner, _, attribute = path.rpartition(".")
            setattr(self.block.get_submodule(owner), attribute, groups * per_group)

    def pad(self, groups: int) -> None:
        """Zero-pad what is kept now to `groups` groups (for exports that need equal layers)."""
        for name, s in self._sliced():
            parameter = getattr(self._modules[s.module], name)
            dim = s.dim if name == "weight" else 0
            pieces = parameter.data.chunk(s.parts, dim) if self.kept else ()
            missing = (groups - self.kept) * s.size
            shape = list(self._tensors[s.module, name].shape)
            shape[dim] = missing
            zeros = parameter.data.new_zeros(shape)
            padded = [torch.cat([piece, zeros], dim) for piece in pieces] or [zeros] * s.parts
            parameter.data = torch.cat(padded, dim)
        if self.kept == 0:
            for path, module in self._dropped.items():
                _set_module(self.block, path, module)
            bias = getattr(self.consumer, "bias", None)
            if bias is not None:
                bias.data = torch.zeros_like(bias.data)
        for module in self._modules.values():
            _follow_shape(module)
        self.kept = groups

    def _sliced(self) -> list[tuple[str, Slice]]:
        """(parameter name, slice) of every tensor that follows the width; a consumer's bias does not."""
        written = [(name, s) for name in FOLLOWS for s in self.width.producers if (s.module, name) in self._tensors]
        return [*written, ("weight", self.width.consumer)]

    def _group_numel(self, name: str, s: Slice) -> int:
        return self._tensors[s.module, name].numel() // self.width.groups

    def _gathered(self, tensor: Tensor, name: str, s: Slice, index: Tensor) -> Tensor:
        entries = _entries(index.to(tensor.device), s, self.width.groups)
        return tensor.index_select(s.dim if name == "weight" else 0, entries)

    def _prefix(self, tensor: Tensor, name: str, s: Slice, groups: int) -> Tensor:
        dim = s.dim if name == "weight" else 0
        if s.parts == 1 or groups == self.width.groups:
            return tensor.narrow(dim, 0, groups * s.size * s.parts)
        # the parts of a fused projection are not neighbours: the one case that copies
        return torch.cat([part.narrow(dim, 0, groups * s.size) for part in tensor.chunk(s.parts, dim)], dim)


def materialise(module: nn.Module) -> None:
    """Give every parameter and buffer its own contiguous memory: views of larger tensors cannot be saved and freed."""
    for parameter in (*module.parameters(), *module.buffers()):
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _entries(order: Tensor, s: Slice, groups: int) -> Tensor:
    """Indices along the sliced dimension for groups in `order`, part by part."""
    within = (order[:, None] * s.size + torch.arange(s.size, device=order.device)).flatten()
    return torch.cat([within + part * groups * s.size for part in range(s.parts)])


def _set_module(block: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(block.get_submodule(owner), name, module)


def _follow_shape(module: nn.Module) -> None:
    """Width attributes of Linear and Conv1D: the latter computes its output shape from them."""
    weight = getattr(module, "weight")
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = weight.shape[:2]
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = len(weight)
    elif hasattr(module, "nf"):
        module.nx, module.nf = weight.shape
