"""Any plain module that torch.fx can trace: channels and neurons that one layer writes and one other reads.

A width is found where a convolution or linear layer's output goes, through operations on single channels alone, to
one convolution or linear layer. Of a chain of layers every second width is taken, since two that meet in a layer
cost a product; the heaviest such choice. Three convolutions of equal widths are one unit, as a bottleneck is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from autoprune.errors import UserError
from autoprune.models.family import Family
from autoprune.models.tracing import Stretch, Trace
from autoprune.models.widths import Slice, Width
from autoprune.search_spaces.channelwise import Place, hooked, name_of, plain, through

KEEP_ZEROS = ("dropout", "identity", "transpose", "permute")
"""What may stand between a width's consumer and the sum: zeros stay zeros."""
LARGEST = 8192  # inputs of a layer behind flattened channels: their second moments are a matrix of as many rows


@dataclass(frozen=True)
class Chain:
    """A width in a trace.

    Args:
        producer: the layer that writes it.
        followers: what stands between and has a weight for each of its channels.
        consumer: the layer that reads it.
        size: entries that the consumer reads of a channel.
        modules: of all these and the norm.
        norm: the BatchNorm directly behind the consumer.
        droppable: a shortcut passes by.
        behind: a width that the consumer writes, which is cut with this one.
    """

    producer: Node
    followers: tuple[Node, ...]
    consumer: Node
    size: int
    modules: dict[Node, Any]
    norm: Node | None
    droppable: bool
    behind: "Chain | None" = None

    @property
    def last(self) -> Node:
        """The last of its nodes."""
        return self.behind.last if self.behind else self.norm or self.consumer

    @property
    def end(self) -> Node:
        """The last layer, which alone others read."""
        return (self.behind or self).consumer

    @property
    def weight(self) -> int:
        """Weights that go with it at most."""
        return sum(self.modules[node].weight.numel() for node in (self.producer, self.consumer))

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.modules[self.producer].weight)

    def width(self, kind: str, group: int) -> Width:
        """As it is declared to the engine, with `group` channels in a group."""
        writers = (self.producer, *self.followers)
        paths = {node: str(node.target) for node in self.modules}
        sizes = {node: len(self.modules[node].weight) // self.channels for node in writers}
        return Width(
            kind=kind,
            groups=self.channels // group,
            producers=tuple(Slice(paths[node], group * sizes[node], 0) for node in writers),
            consumer=Slice(paths[self.consumer], group * self.size, 1),
            on_drop={paths[node]: _stand_in(module, node is self.end) for node, module in self.modules.items()},
            norm=paths[self.norm] if self.norm else None,
            droppable=self.droppable,
            behind=self.behind.width(kind, group) if self.behind else None,
        )


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """Those of one block, `conv`, `mlp`, `conv2`, ..."""
    found: list[Width] = []
    chains: Any = block.chains
    for chain in chains:
        linear = isinstance(chain.modules[chain.producer], nn.Linear)
        kind = "mlp" if linear else "conv"
        before = sum(width.kind.startswith(kind) for width in found)
        found.append(chain.width(f"{kind}{before + 1}" if before else kind, mlp_group if linear else 1))
    return found


def cut(trace: Trace) -> list[Stretch]:
    """The blocks of a trace: from a cut before a width to the next such cut, each width in one of them.

    Raises:
        UserError: there is no width.
    """
    chains = [chain for run in _runs(trace) for chain in _chosen(run)]
    if not chains:
        raise UserError(
            f"a {type(trace.whole.network).__name__} is of no family that is known for plain modules, and its trace "
            "has no width to cut: no convolution or linear layer whose output a single one reads, through operations "
            "on single channels alone (BatchNorm, activations, pooling, depthwise convolutions). Declare its blocks in "
            "a family of your own (search_spaces/resnet.py is an example)."
        )
    numbers = {node: i for i, node in enumerate(trace.nodes)}
    spans = sorted((numbers[chain.producer], numbers[chain.last], i) for i, chain in enumerate(chains))
    cuts = [i for i in trace.cuts if not any(first < i <= last for first, last, _ in spans)]
    begins = sorted({max(i for i in cuts if i <= first) for first, _, _ in spans})
    end = min(i for i in cuts if i > max(last for _, last, _ in spans))
    return [
        Stretch(begin, following, [chains[i] for first, _, i in spans if begin <= first < following])
        for begin, following in zip(begins, [*begins[1:], end], strict=True)
    ]


def _runs(trace: Trace) -> list[list[Chain]]:
    """All chains, in runs: what one consumes is what the next produces."""
    found = (_chain(trace, node) for node in trace.nodes if _is_layer(trace, node))
    by_producer = {chain.producer: chain for chain in found if chain}
    consumers = {chain.consumer for chain in by_producer.values()}
    runs = [[chain] for chain in by_producer.values() if chain.producer not in consumers]
    for run in runs:
        while run[-1].consumer in by_producer:
            run.append(by_producer[run[-1].consumer])
    return runs


def _chosen(run: Sequence[Chain]) -> list[Chain]:
    """The heaviest chains of a run of which no two meet in a layer; of a bottleneck both, as one."""
    if len(run) == 2 and _bottleneck(*run):
        first, second = run
        modules = first.modules | second.modules
        behind = Chain(**vars(second) | {"modules": modules})
        return [Chain(**vars(first) | {"modules": modules, "droppable": second.droppable, "behind": behind})]
    skipped: tuple[int, list[Chain]] = (0, [])
    taken = skipped
    for chain in run:
        skipped, taken = (
            max(skipped, taken, key=lambda choice: choice[0]),
            (
                skipped[0] + chain.weight,
                [*skipped[1], chain],
            ),
        )
    return max(skipped, taken, key=lambda choice: choice[0])[1]


def _bottleneck(first: Chain, second: Chain) -> bool:
    layers = [first.modules[first.producer], first.modules[first.consumer], second.modules[second.consumer]]
    return all(isinstance(layer, nn.Conv2d) for layer in layers) and first.channels == second.channels


def _chain(trace: Trace, producer: Node) -> Chain | None:
    """The width that a layer writes, if it is one."""
    place = Place(1 if _convolves(trace, producer) else len(producer.meta["shape"]) - 1)
    node, followers = producer, []
    while (reader := _reader(node)) is not None and not _is_layer(trace, reader):
        following = through(trace, node, reader, place)
        if following is None:
            return None
        if reader in trace.modules and getattr(trace.modules[reader], "weight", None) is not None:
            followers.append(reader)
        node, place = reader, following
    if reader is None or not _reads(trace, reader, node, place):
        return None
    norm = _norm(trace, reader)
    parts = [producer, *followers, reader] + ([norm] if norm else [])
    modules = {part: trace.modules[part] for part in parts}
    return Chain(producer, tuple(followers), reader, place.size, modules, norm, _passed_by(norm or reader))


def _reads(trace: Trace, layer: Node, node: Node, place: Place) -> bool:
    """Whether a layer reads the channels of a node as its inputs."""
    if _convolves(trace, layer):
        return place == Place(1) and len(node.meta["shape"]) == 4
    linear: Any = trace.modules[layer]
    inputs: int = linear.weight.shape[1]
    return place.dim == len(node.meta["shape"]) - 1 and (place.size == 1 or inputs <= LARGEST)


def _is_layer(trace: Trace, node: Node) -> bool:
    module: Any = trace.modules.get(node)
    return (_convolves(trace, node) and module.groups == 1) or (type(module) is nn.Linear and not hooked(module))


def _convolves(trace: Trace, node: Node) -> bool:
    return node in trace.modules and plain(trace.modules[node])


def _reader(node: Node) -> Node | None:
    """The only node that computes with a node's values; what asks for the number of images does not."""
    readers = [user for user in node.users if not _asks_count(user)]
    return readers[0] if len(readers) == 1 else None


def _asks_count(node: Node) -> bool:
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,)
    shape = name_of(node) == "getattr" and node.args[1:] == ("shape",)
    return shape and all(name_of(user) == "getitem" and user.args[1:] == (0,) for user in node.users)


def _norm(trace: Trace, consumer: Node) -> Node | None:
    """The BatchNorm that alone reads a consumer."""
    reader = _reader(consumer)
    module = trace.modules.get(reader) if reader else None
    shape = consumer.meta["shape"]
    fits = (type(module) is nn.BatchNorm2d and len(shape) == 4) or (type(module) is nn.BatchNorm1d and len(shape) == 2)
    place = through(trace, consumer, reader, Place(1)) if reader and fits else None
    return reader if place else None


def _passed_by(end: Node) -> bool:
    """Whether what a width gives is added to something else of its shape."""
    reader = _reader(end)
    while reader is not None and name_of(reader).startswith(KEEP_ZEROS):
        end, reader = reader, _reader(reader)
    if reader is None or name_of(reader) not in ("add", "iadd"):
        return False
    others = [source for source in reader.args if source is not end]
    return all(
        isinstance(other, Node) and other.op != "get_attr" and other.meta["shape"] == end.meta["shape"]
        for other in others
    )


def _stand_in(module: nn.Module, read: bool) -> str:
    zeros = "zero" if read else "narrow"
    if isinstance(module, nn.Conv2d):
        return f"{zeros}-convolution"
    return f"{zeros}-linear" if isinstance(module, nn.Linear) else "identity"


FAMILY = Family(name="traced", model_types=(), blocks="", widths=widths, task="images", cut=cut)
