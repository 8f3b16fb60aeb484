"""Follows a width through a traced graph by running the graph twice: with all of its channels, and with some of them.

An operation keeps channels apart if its result for some channels equals its result for these channels among all. So
operations need no list of names: pooling, padding, cropping, flattening, gates and activations of any package are
recognised, and so is what mixes channels (a norm over them, a mean, a shuffle). Values are random. A layer that writes
the width, or has a weight for each of its channels, is run with the weights of these channels.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from autoprune.cutting.layers import alike, blind, of_columns, of_rows
from autoprune.cutting.products import hooked, is_depthwise, product_of
from autoprune.networks.tracing import Trace
from autoprune.search_spaces.operations import called, is_layer, name_of

LARGEST = 8192  # inputs of a layer behind flattened channels: their second moments are a matrix of as many rows
READERS = 3  # of a width at most: what more read is a stream
WRITERS = 3
JOINING = ("mul", "imul", "add", "iadd")
"""Operations at which two widths may meet: gates and parallel branches."""


@dataclass(frozen=True)
class Place:
    """The position of channels in a tensor.

    Args:
        dim: the dimension that counts them.
        size: number of neighbouring entries for one channel.
    """

    dim: int
    size: int = 1


class MixedError(Exception):
    """A width cannot be cut. The message is the end of a sentence that begins with "layers"."""


class _JoinedError(Exception):
    """A width is joined with the output of another layer, which must be cut as well."""

    def __init__(self, layer: Node, gate: bool) -> None:
        super().__init__()
        self.layer, self.gate = layer, gate


@dataclass
class Reach:
    """The layers that a width reaches.

    Args:
        writers: layers that write it, in order.
        followers: what has a weight for each of its channels, with the entries of one.
        readers: layers that read it, with the entries of one channel. The last is its consumer; others are in gates.
    """

    writers: list[Node]
    followers: dict[Node, int] = field(default_factory=dict)
    readers: dict[Node, int] = field(default_factory=dict)


def reach(trace: Trace, writer: Node) -> Reach:
    """Find the layers that the channels of a layer reach.

    Raises:
        MixedError: the channels reach more than one consumer, or an operation mixes them.
    """
    writers, of_gates = [writer], set[Node]()
    while True:
        try:
            return _Rehearsal(trace, writers, of_gates).run()
        except _JoinedError as joined:
            if joined.layer in writers or len(writers) == WRITERS:
                raise MixedError("whose outputs are added to those of others") from None
            of_gates |= {joined.layer} if joined.gate else set()
            writers = sorted([*writers, joined.layer], key=trace.numbers.__getitem__)


class _Rehearsal:
    """One width run whole and cut."""

    def __init__(self, trace: Trace, writers: Sequence[Node], of_gates: Set[Node]) -> None:
        self._trace, self._found, self._of_gates = trace, Reach(list(writers)), of_gates
        self._channels = len(trace.modules[writers[0]].weight)
        self._draw = torch.Generator().manual_seed(0)
        # some, in another order; of more than two neither the first nor the last, which an operation may read
        inner = torch.arange(self._channels)[self._channels > 1 :][: max(1, self._channels - 2)]
        self._kept = inner[torch.randperm(len(inner), generator=self._draw)][: max(1, len(inner) // 2)]
        self._whole: dict[Node, Any] = {}
        self._cut: dict[Node, Any] = {}
        self._places: dict[Node, Place] = {}  # of what has the width's channels
        self._sized: set[Node] = set()  # numbers that tell how many there are
        self._of_reader: dict[Node, set[Node]] = {}  # what depends on a reader -> those readers

    @torch.no_grad()
    def run(self) -> Reach:
        nodes, numbers = self._trace.nodes, self._trace.numbers
        if self._channels < 2:
            raise MixedError("that write a single channel")
        at = numbers[self._found.writers[0]]
        end = at
        while at <= end:
            node = nodes[at]
            self._visit(node)
            if node in self._places or node in self._sized:
                if any(user not in numbers for user in node.users):
                    raise MixedError("whose outputs the network returns")
                end = max([end, *(numbers[user] for user in node.users)])
            end = max([end, *(numbers[writer] for writer in self._found.writers)])
            at += 1
        self._check()
        return self._found

    def _check(self) -> None:
        if not self._found.readers:
            raise MixedError("that no layer reads")
        *gates, consumer = self._found.readers
        inside = set().union(*(self._of_reader.get(writer, set()) for writer in self._of_gates))
        if not set(gates) <= inside:
            raise MixedError("that several layers read")
        entries, module = self._found.readers[consumer], self._trace.modules[consumer]
        if entries > 1 and module.weight.shape[1] > LARGEST:
            raise MixedError(f"behind which a layer reads more than {LARGEST} inputs")
        if product_of(module, self._value(consumer.args[0], self._whole)) is None:
            raise MixedError("that a layer reads whose weight is made from others")

    def _visit(self, node: Node) -> None:
        touched = [source for source in node.all_input_nodes if source in self._whole]
        self._of_reader[node] = set().union(*(self._of_reader.get(source, set()) for source in touched))
        if node in self._found.writers:
            self._written(node)
        elif not any(source in self._places or source in self._sized for source in touched):
            if touched:  # by numbers that do not change, or behind a reader
                self._whole[node] = self._cut[node] = self._called(node, self._whole)
        elif is_layer(self._trace, node) and self._reads(node):
            self._consumed(node)
        else:
            self._passed(node)

    def _written(self, node: Node) -> None:
        module, shape = self._trace.modules[node], node.meta["shape"]
        if any(source in self._places for source in node.all_input_nodes):
            raise MixedError("that read what they write")
        if len(module.weight) != self._channels:
            raise MixedError("whose outputs are added to those of others")
        self._whole[node] = self._called(node, self._whole)
        self._cut[node] = self._called(node, self._cut, of_rows(module, self._on(module), self._channels))
        place = Place(1 if isinstance(module, nn.Conv2d) else len(shape) - 1)
        if self._place_in(node) != place:
            raise MixedError("whose channels depend on each other")
        self._places[node] = place

    def _reads(self, node: Node) -> bool:
        place, shape = self._places.get(node.args[0]), node.args[0].meta["shape"]  # type: ignore[arg-type,union-attr]
        if place is None:
            return False
        if isinstance(self._trace.modules[node], nn.Conv2d):
            return place == Place(1) and len(shape) == 4
        return place.dim == len(shape) - 1

    def _consumed(self, node: Node) -> None:
        source: Any = node.args[0]
        module, size = self._trace.modules[node], self._places[source].size
        index = self._entries(size).to(module.weight.device)
        self._found.readers[node] = size
        if len(self._found.readers) > READERS:
            raise MixedError("that several layers read")
        self._of_reader[node].add(node)
        masked = self._called(node, self._whole, blind(module, index))
        sliced = self._called(node, self._cut, of_columns(module, index))
        if not alike(masked, sliced):
            raise MixedError("that a layer reads whose weight is made from others")
        self._whole[node] = self._cut[node] = masked

    def _passed(self, node: Node) -> None:
        """An operation on what the width writes: as it is, or with the weights of its own that follow the width."""
        self._whole[node] = self._called(node, self._whole)
        for module in (None, *self._following(node)):
            try:
                self._cut[node] = self._called(node, self._cut, module)
            except Exception:  # noqa: S112 (whatever an operation says to fewer channels)
                continue
            if _is_number(self._whole[node]):
                self._sized |= {node} if self._whole[node] != self._cut[node] else set()
                return
            if alike(self._whole[node], self._cut[node]):
                return
            place = self._place_in(node)
            if place is not None:
                self._places[node] = place
                if module is not None:
                    self._found.followers[node] = place.size
                return
        self._joined(node)
        called = name_of(node)
        if is_layer(self._trace, node) or getattr(self._trace.modules.get(node), "groups", 1) > 1:
            raise MixedError(f"that a layer reads in a way of its own ({called})")
        raise MixedError(f"whose channels are mixed by {called}")

    def _following(self, node: Node) -> list[nn.Module]:
        module = self._trace.modules.get(node)
        source = node.args[0] if node.args else None
        if module is None or not isinstance(source, Node) or source not in self._places or hooked(module):
            return []
        entries = self._channels * self._places[source].size
        dense = isinstance(module, nn.Conv2d) and not is_depthwise(module)
        return [] if dense else [of_rows(module, self._entries(self._places[source].size), entries)]

    def _joined(self, node: Node) -> None:
        """Where a width meets another one, or one that is put into its shape, look for the layer that writes that."""
        sized = any(source in self._sized for source in node.all_input_nodes)
        if name_of(node) not in JOINING and not sized:
            return
        for source in node.all_input_nodes:
            while source not in self._places and source.meta.get("shape") is not None:
                if source in self._trace.modules and is_layer(self._trace, source):
                    raise _JoinedError(source, sized or "mul" in name_of(node))
                before = [one for one in source.all_input_nodes if one.meta.get("shape") is not None]
                if len(before) != 1 or source.op == "placeholder":
                    break
                source = before[0]
        if name_of(node) in JOINING[2:]:
            raise MixedError("whose outputs are added to those of others")

    def _place_in(self, node: Node) -> Place | None:
        """Where channels are in what a node gives, if what it gives for some is what it gives for these among all."""
        whole, cut = self._whole[node], self._cut[node]
        if not isinstance(cut, Tensor) or not isinstance(whole, Tensor) or whole.dim() != cut.dim():
            return None
        dims = [d for d, (a, b) in enumerate(zip(whole.shape, cut.shape, strict=True)) if a != b]
        if len(dims) != 1 or whole.shape[dims[0]] % self._channels:
            return None
        size = whole.shape[dims[0]] // self._channels
        if cut.shape[dims[0]] != size * len(self._kept):
            return None
        index = self._entries(size).to(whole.device)
        return Place(dims[0], size) if alike(whole.index_select(dims[0], index), cut) else None

    def _entries(self, size: int) -> Tensor:
        return (self._kept[:, None] * size + torch.arange(size)).flatten()

    def _on(self, module: Any) -> Tensor:
        return self._kept.to(module.weight.device)

    def _called(self, node: Node, values: dict[Node, Any], module: nn.Module | None = None) -> Any:
        """What a node gives in one of the two runs, with its own module or another one in that one's place."""
        return called(self._trace, node, lambda source: self._value(source, values), module)

    def _value(self, node: Any, values: dict[Node, Any]) -> Any:
        """What a node gave, drawn where it has nothing to do with the width."""
        if node in values:
            return values[node]
        if node.meta.get("constant") is None:
            drawn = torch.randn(node.meta["shape"], generator=self._draw)
            like = next(self._trace.whole.parameters())
            self._whole[node] = self._cut[node] = drawn.to(like.device, node.meta["dtype"])
            return values[node]
        return node.meta["constant"]


def _is_number(value: Any) -> bool:
    """Whether it is a number or several, as shapes are."""
    if isinstance(value, tuple | list):
        return all(map(_is_number, value))
    return isinstance(value, int | float | str | torch.dtype | torch.device | type(None))
