"""Cutting a width out of a live block: one generic piece of code for every family.

A family declares `Width`s; here they are permuted, sliced, counted, dropped and put back. A `LiveWidth` keeps the
dense tensors and swaps views of them in and out of the block's parameters, so that a level costs no copy.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.level import Level
from autoprune.models.layers import follow_shape, patches
from autoprune.models.stand_ins import STAND_INS
from autoprune.models.widths import Slice, Width
from autoprune.space import Unit

CONVOLUTION = 4
"""Dimensions of a convolution's weight, and of what it reads."""

STATISTICS = ("running_mean", "running_var")
FOLLOWS = ("weight", "bias", *STATISTICS)
"""What follows a width in the modules that write it, where they have it."""


@dataclass(frozen=True)
class LevelWeights:
    """What a level puts in the place of dense tensors; None: their prefixes.

    Args:
        consumer: the consumer's weight, in its own layout.
        norm: mean and variance of the consumer's outputs, `[2, out]`.
        behind: of the width behind.
    """

    consumer: Tensor | None = None
    norm: Tensor | None = None
    behind: "LevelWeights | None" = None


AS_DENSE = LevelWeights()


class LiveWidth:
    """A width of a live block, and the levels that are swapped into it.

    Args:
        block: the block, whose parameters are replaced in place.
        width: what to cut.
        before: the width that this one is behind.

    Attributes:
        bring: gives a consumer's weight where this width's tensors are, which `move` changes (models/streaming.py).
        in_place: the consumer's weight that was given with what is kept now.
        positions: module path -> how often its matrix is multiplied with for one image (models/images.py).
    """

    def __init__(self, block: nn.Module, width: Width, before: "LiveWidth | None" = None) -> None:
        self.block, self.width, self._before = block, width, before
        self.kept = width.groups
        paths = [s.module for s in (*width.producers, width.consumer)] + ([width.norm] if width.norm else [])
        self._modules = {path: block.get_submodule(path) for path in paths}
        self._dropped = {path: block.get_submodule(path) for path in width.on_drop}
        self._tensors = {
            (path, name): parameter.data
            for path, module in self._modules.items()
            for name, parameter in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            if parameter.dim()
        }
        self._norm: Any = self._modules[width.norm] if width.norm else None
        self._placed = {(width.consumer.module, "weight"), *((width.norm, name) for name in STATISTICS)}
        # a grouped convolution among those that follow the width is depthwise
        self._depthwise = {m for m in self._modules.values() if isinstance(m, nn.Conv2d) and m.groups > 1}
        if before is not None:
            before._tensors.update(self._tensors)
            self._tensors = before._tensors  # what both cut is one tensor
        self.behind = LiveWidth(block, width.behind, self) if width.behind else None
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

    @property
    def links(self) -> "list[LiveWidth]":
        """This width and those behind it."""
        return [self, *(self.behind.links if self.behind else [])]

    def modules(self) -> Iterator[nn.Module]:
        """What is cut, and whatever goes with the sub-block when nothing of it is kept."""
        for link in self.links:
            yield from link._modules.values()
        for module in self._dropped.values():
            yield from module.modules()

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the dense tensors or views of them are put into."""
        return [getattr(self._modules[path], name) for path, name in self._tensors if path in self._modules]

    def move(self, tensors: Mapping[tuple[str, str], Tensor]) -> None:
        """Compute with copies of the dense tensors that are elsewhere from now on; what is kept stays as it is."""
        self._tensors = dict(tensors)
        for (path, name), tensor in tensors.items():  # those of a dropped sub-block would hold on to the old ones
            getattr(self._modules[path], name).data = tensor
        if self._index is None:
            self.keep(self.kept, LevelWeights(self.in_place))
        else:
            self.select(self._index, self.in_place)

    @property
    def consumer(self) -> nn.Module:
        """The module whose input is this width."""
        return self._modules[self.width.consumer.module]

    @property
    def norm(self) -> nn.Module | None:
        """The BatchNorm that reads the consumer, where there is one."""
        norm: nn.Module | None = self._norm
        return norm

    @property
    def consumer_weight(self) -> Tensor:
        """The consumer's dense weight with the width last, `[out, groups * size]`: a view."""
        weight = self._tensors[self.width.consumer.module, "weight"]
        return self.matrix(weight)

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
        if self._tensors[self.width.consumer.module, "weight"].dim() == CONVOLUTION:
            inputs = patches(self.consumer, inputs)
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
        if self.width.norm is None:
            return None
        mean, variance = (self._tensors[self.width.norm, name] for name in STATISTICS)
        return mean, variance

    @property
    def scales(self) -> Tensor | None:
        """Of the last BatchNorm that writes the width, `[groups * size]`; None where none does, or it has none."""
        norms = [s.module for s in self.width.producers if isinstance(self._modules[s.module], nn.BatchNorm2d)]
        return self._tensors.get((norms[-1], "weight")) if norms else None

    def weights(self) -> list[Tensor]:
        """The dense weight matrices that follow this width, producers before the consumer."""
        named = [self._tensors[s.module, name] for name, s in self._sliced() if name == "weight"]
        return [weight for weight in named if weight.dim() > 1]

    def unit(self, block: int, levels: tuple[Level, ...]) -> Unit:
        """The numbers of this width as a `Unit` of the search space (torch-free)."""
        size, shared, square = self._costs({})
        macs, shared_macs, square_macs = self._costs(self.positions, matrices=True)
        inside = {id(p): p.numel() for module in self._dropped.values() for p in module.parameters()}
        modules = (module for link in self.links for module in link._modules.values())
        inside |= {id(p): p.numel() for module in modules for p in module.parameters(recurse=False)}
        groups, tokens = self.width.groups, self.positions.get(self.width.consumer.module)
        unit = Unit(
            name=f"{block}.{self.width.kind}", kind=self.width.kind, block=block, groups=groups, levels=levels,
            group_params=size,
            # an image is its own context, of a length that is known
            group_macs=macs + (self.width.context_macs * tokens**2 if tokens else 0),
            context_macs=0 if tokens else self.width.context_macs, group_cache=self.width.cache,
            matrices=1 + sum(len(link.weights()) - 1 for link in self.links),
            square_params=square, square_macs=square_macs,
            bundle=self.width.bundles.size, bundle_params=shared, bundle_macs=shared_macs,
        )  # fmt: skip
        return replace(unit, fixed_params=sum(inside.values()) - unit.params(groups))

    def _costs(self, times: Mapping[str, int], matrices: bool = False) -> tuple[int, int, int]:
        """Weights of a group, each as often as `times` says; of a bundle of groups; and of a pair of groups, what two
        widths share."""
        groups, single, bundled, pairs = self.width.groups, 0, 0, 0
        sliced = [
            (name, s)
            for link in self.links
            for name, s in link._sliced()
            if name in link._modules[s.module]._parameters
        ]
        cut = [(s.module, name) for name, s in sliced]
        shared = {(s.module, name) for name, s in sliced if s.shared}
        for path, name in dict.fromkeys(cut):
            tensor = self._tensors[path, name]
            if matrices and (tensor.dim() == 1 or name != "weight"):
                continue
            numel = tensor.numel() * times.get(path, 1)
            if cut.count((path, name)) > 1:
                pairs += numel // groups**2
            elif (path, name) in shared:
                bundled += numel * self.width.bundles.size // groups
            else:
                single += numel // groups
        return single, bundled, pairs

    def permute(self, *orders: Tensor) -> None:
        """Put the groups in `order`, most important first, so that a level is a prefix. Changes no output.

        Args:
            orders: `[G]` for this width, and for each behind it.
        """
        for link, order in zip(self.links, orders, strict=True):
            for name, s in link._sliced():
                tensor = self._tensors[s.module, name]
                dim = s.dim if name == "weight" else 0
                index = self._entries(order.to(tensor.device), s)
                self._tensors[s.module, name] = tensor.index_select(dim, index)
        self.keep(self.kept)

    def keep(self, groups: int, weights: LevelWeights = AS_DENSE) -> None:
        """Keep the first `groups` groups: views are swapped in, or the sub-block is dropped at 0.

        Args:
            weights: of this level, where it has its own.
        """
        assert groups == 0 or self.width.can_keep(groups), f"{groups} of {self.width.groups} leave unequal bundles"
        self._index = None
        statistics = self.statistics if weights.norm is None else weights.norm
        if statistics is not None:
            like = self._tensors[self.width.norm or "", STATISTICS[0]]  # levels are float32 in any network
            self._norm.running_mean.data, self._norm.running_var.data = (tensor.to(like) for tensor in statistics)
        sources = ((name, s, self._source(s.module, name)) for name, s in self._sliced())
        prefixes = ((name, s, self._prefix(tensor, name, s, groups)) for name, s, tensor in sources)
        self._put(groups, prefixes, weights.consumer)
        if self.behind is not None:
            self.behind.keep(groups, weights.behind or AS_DENSE)

    def _source(self, path: str, name: str) -> Tensor:
        """A dense tensor, or what the width before has just put there."""
        if self._before is None or (path, name) not in self._before._placed:
            return self._tensors[path, name]
        tensor: Tensor = getattr(self._modules[path], name).data
        return tensor

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
        # what no level changes, where padding a dropped sub-block had put zeros
        norm = self.width.norm or ""
        for key in ((self.width.consumer.module, "bias"), (norm, "weight"), (norm, "bias")):
            if key in self._tensors:
                getattr(self._modules[key[0]], key[1]).data = self._tensors[key]
        for module in self._modules.values():
            follow_shape(module, module in self._depthwise)
        self._count(groups)

    @contextmanager
    def blind(self, groups: int) -> Iterator[None]:
        """Have what reads the width multiply all but the first groups with zeros for a while, at their full size."""
        readers = [
            s
            for link in self.links
            for s in (*link.width.producers, link.width.consumer)
            if s.reads or s is link.width.consumer
        ]
        weights = {s.module: getattr(self.block.get_submodule(s.module), "weight") for s in readers}
        before = {path: weight.data for path, weight in weights.items()}
        try:
            for s in readers:
                weight = weights[s.module]
                weight.data = weight.data.clone()
                weight.data.narrow(s.dim, groups * s.size, (self.width.groups - groups) * s.size).zero_()
            yield
        finally:
            for path, weight in weights.items():
                weight.data = before[path]

    def pad(self, groups: int) -> None:
        """Zero-pad what is kept now to `groups` groups (for exports that need a stock model's shape)."""
        if self.kept == 0:
            self.keep(1)
            self._silence()
        for link in self.links:
            for name, s in link._sliced():
                parameter = getattr(link._modules[s.module], name)
                dim = s.dim if name == "weight" else 0
                pieces = parameter.data.chunk(s.parts, dim)
                shape = list(pieces[0].shape)
                shape[dim] = (link.width.pieces(s, groups) - link.width.pieces(s, self.kept)) * s.size
                zeros = parameter.data.new_zeros(shape)
                parameter.data = torch.cat([torch.cat([piece, zeros], dim) for piece in pieces], dim)
        for link in self.links:
            link.kept = groups
            for module in link._modules.values():
                follow_shape(module, module in link._depthwise)
        self._count(groups)

    def _silence(self) -> None:
        """The last consumer and its norm give nothing but zeros, until something else is kept."""
        last = self.links[-1]
        for module in filter(None, (last.consumer, last.norm)):
            for parameter in module.parameters(recurse=False):
                parameter.data = torch.zeros_like(parameter)

    def _count(self, groups: int) -> None:
        """Set what the block's modules say of how many groups there are."""
        for path, value in self.width.attributes_of(groups).items():
            owner, _, attribute = path.rpartition(".")
            setattr(self.block.get_submodule(owner), attribute, value)

    def _sliced(self) -> list[tuple[str, Slice]]:
        """(parameter name, slice) of every tensor that follows the width; a consumer's bias does not."""
        return [
            *((name, s) for s in self.width.producers for name in self._following(s)),
            ("weight", self.width.consumer),
        ]

    def _following(self, s: Slice) -> list[str]:
        """Names of a module's tensors that follow the width: all with a row a channel; of what reads it, the weight."""
        if s.reads:
            return ["weight"]
        entries = s.size * s.parts * self.width.pieces(s, self.width.groups)
        own = [name for path, name in self._tensors if path == s.module]
        return [name for name in own if name in FOLLOWS or len(self._tensors[s.module, name]) == entries]

    def _gathered(self, tensor: Tensor, name: str, s: Slice, index: Tensor) -> Tensor:
        entries = self._entries(index.to(tensor.device), s)
        return tensor.index_select(s.dim if name == "weight" else 0, entries)

    def _prefix(self, tensor: Tensor, name: str, s: Slice, groups: int) -> Tensor:
        dim = s.dim if name == "weight" else 0
        if s.parts == 1 or groups == self.width.groups:
            return tensor.narrow(dim, 0, self.width.pieces(s, groups) * s.size * s.parts)
        # the parts of a fused projection are not neighbours: the one case that copies
        return torch.cat([part.narrow(dim, 0, groups * s.size) for part in tensor.chunk(s.parts, dim)], dim)

    def _entries(self, index: Tensor, s: Slice) -> Tensor:
        """Indices along the sliced dimension for groups, bundle by bundle, in this order; part by part."""
        pieces = torch.unique_consecutive(index // self.width.bundles.size) if s.shared else index
        return _entries(pieces, s, self.width.pieces(s, self.width.groups))


def materialise(module: nn.Module) -> None:
    """Give every parameter and buffer its own contiguous memory: views of larger tensors cannot be saved and freed."""
    for parameter in (*module.parameters(), *module.buffers()):
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _entries(order: Tensor, s: Slice, groups: int) -> Tensor:
    """Indices along the sliced dimension for pieces in `order`, of so many, part by part."""
    within = (order[:, None] * s.size + torch.arange(s.size, device=order.device)).flatten()
    return torch.cat([within + part * groups * s.size for part in range(s.parts)])


def _set_module(block: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(block.get_submodule(owner), name, module)
