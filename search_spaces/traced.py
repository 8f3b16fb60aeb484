"""Any plain module that torch.fx can trace: channels and neurons that one layer writes and one other reads.

A width is the output of a convolution or linear layer that reaches exactly one other such layer, through gates and
operations on single channels only (channelwise.py). In a chain of layers at most every second width is taken, because
the costs of two widths that meet in a layer would multiply. The choice with the most weights is taken. Three
convolutions of equal widths are one unit, as in a bottleneck.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from autoprune.cutting.products import hooked
from autoprune.cutting.widths import Slice, Width
from autoprune.errors import UserError
from autoprune.networks.family import Family
from autoprune.networks.tracing import Stretch, Trace
from autoprune.search_spaces.channelwise import MixedError, reach
from autoprune.search_spaces.operations import is_layer, keeps_zeros, name_of


@dataclass(frozen=True)
class Chain:
    """A width in a trace.

    Args:
        producer: the first layer that writes it.
        followers: other modules with a weight for each of its channels, and the entries of one channel.
        consumer: the layer that reads it.
        size: number of entries that the consumer reads for a channel.
        modules: the modules of all these, of the gates and of the norm.
        norm: the BatchNorm directly behind the consumer.
        droppable: whether a shortcut leads around it.
        more: the followers that write it together with the producer.
        gates: layers that read it and lead back to it, with the entries of a channel.
        behind: a width that the consumer writes, which is cut with this one.
    """

    producer: Node
    followers: dict[Node, int]
    consumer: Node
    size: int
    modules: dict[Node, Any]
    norm: Node | None
    droppable: bool
    more: tuple[Node, ...]
    gates: dict[Node, int]
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
    def layers(self) -> set[Node]:
        """Layers that write or read it."""
        return {self.producer, *self.more, *self.gates, self.consumer}

    @property
    def weight(self) -> int:
        """Weights that go with it at most."""
        return sum(self.modules[node].weight.numel() for node in self.layers)

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.modules[self.producer].weight)

    def width(self, kind: str, group: int) -> Width:
        """As it is declared to the engine, with `group` channels in a group."""
        paths = {node: str(node.target) for node in self.modules}
        written = {self.producer: 1, **self.followers}
        gates = (Slice(paths[node], group * size, 1, reads=True) for node, size in self.gates.items())
        return Width(
            kind=kind,
            groups=self.channels // group,
            producers=(*(Slice(paths[node], group * size, 0) for node, size in written.items()), *gates),
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
    found: dict[Node, Chain] = {}
    for node in trace.nodes:
        if is_layer(trace, node) and node not in trace.left and not any(node in chain.more for chain in found.values()):
            try:
                found[node] = _chain(trace, node)
            except MixedError as mixed:
                trace.left[node] = str(mixed)
    chains = [chain for run in _runs(list(found.values())) for chain in _chosen(run)]
    if not chains:
        raise UserError(
            f"a {type(trace.whole.network).__name__} is of no family that is known for plain modules, and its trace "
            "has no width to cut: no convolution or linear layer whose output a single one reads, through operations "
            "on single channels alone (BatchNorm, activations, pooling, depthwise convolutions). Declare its blocks in "
            "a family of your own (search_spaces/resnet.py is an example)."
        )
    spans = sorted((trace.numbers[chain.producer], trace.numbers[chain.last], i) for i, chain in enumerate(chains))
    cuts = [i for i in trace.cuts if not any(first < i <= last for first, last, _ in spans)]
    begins = sorted({max(i for i in cuts if i <= first) for first, _, _ in spans})
    end = min(i for i in cuts if i > max(last for _, last, _ in spans))
    return [
        Stretch(begin, following, [chains[i] for first, _, i in spans if begin <= first < following])
        for begin, following in zip(begins, [*begins[1:], end], strict=True)
    ]


def _runs(chains: Sequence[Chain]) -> list[list[Chain]]:
    """All chains, in runs: what one consumes is what the next produces."""
    inside = [chain for chain in chains if any(chain.layers < other.layers for other in chains)]  # of gates
    by_producer = {chain.producer: chain for chain in chains if chain not in inside}
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
    alone = not (first.more or second.more or first.gates or second.gates)
    return alone and all(isinstance(layer, nn.Conv2d) for layer in layers) and first.channels == second.channels


def _chain(trace: Trace, producer: Node) -> Chain:
    """The width that a layer writes.

    Raises:
        MixedError: it cannot be cut.
    """
    found = reach(trace, producer)
    *gates, consumer = found.readers
    norm = _norm(trace, consumer)
    parts = [*found.writers, *found.followers, *gates, consumer] + ([norm] if norm else [])
    modules = {part: trace.modules[part] for part in parts}
    first, *more = found.writers
    sizes = {gate: found.readers[gate] for gate in gates}
    passed = _passed_by(trace, norm or consumer)
    followers = found.followers | dict.fromkeys(more, 1)
    return Chain(first, followers, consumer, found.readers[consumer], modules, norm, passed, tuple(more), sizes)


def _readers(node: Node) -> list[Node]:
    """What computes with a node's values, and does not only ask for their shape."""
    return [user for user in node.users if user.meta.get("shape") is not None or user.op == "output"]


def _norm(trace: Trace, consumer: Node) -> Node | None:
    """The BatchNorm that alone reads a consumer, with statistics and scales of its own."""
    readers = _readers(consumer)
    module: Any = trace.modules.get(readers[0]) if len(readers) == 1 else None
    shape = consumer.meta["shape"]
    fits = (type(module) is nn.BatchNorm2d and len(shape) == 4) or (type(module) is nn.BatchNorm1d and len(shape) == 2)
    whole = fits and module.track_running_stats and module.affine and not hooked(module)
    return readers[0] if whole else None


def _passed_by(trace: Trace, end: Node) -> bool:
    """Whether what a width gives is added to something else of its shape, so that zeros add nothing."""
    readers = _readers(end)
    while len(readers) == 1 and name_of(readers[0]) not in ("add", "iadd") and keeps_zeros(trace, readers[0]):
        end, readers = readers[0], _readers(readers[0])
    if len(readers) != 1 or name_of(readers[0]) not in ("add", "iadd"):
        return False
    others = [source for source in readers[0].args if source is not end]
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
