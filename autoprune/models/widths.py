"""What a family declares of a block: its internal widths, which weights write them, and which weight reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Slice:
    """A dimension of a module's weight that follows a width.

    Args:
        module: path of the module in the block.
        size: entries of that dimension that belong to one group (in each part): rows or columns, channels.
        dim: the dimension of `weight`.
        parts: how many blocks of `groups * size` entries stand one after another (3 in a fused q|k|v).
        reads: whether the module reads the width beside the consumer, as gates do: its bias does not follow.
    """

    module: str
    size: int
    dim: int
    parts: int = 1
    reads: bool = False


@dataclass(frozen=True)
class Width:
    """An internal width of a block: what `producers` write and `consumer` reads.

    Args:
        kind: attention, mlp, ...; with the block's index it names the unit.
        groups: removable pieces.
        producers: weights (and biases) whose output shrinks with the width.
        consumer: the weight whose input shrinks; its bias stays while anything is kept.
        on_drop: module path -> a name in `stand_ins.py`: what stands there when nothing is kept.
        attributes: path of an integer attribute in the block -> its value for each kept group.
        config: configuration attribute of the layer -> its value for each kept group.
        context_macs: multiply-accumulates of one group per token and context position (attention scores).
        cache: entries of the cache of keys and values of one group and position.
        norm: path of the BatchNorm that reads the consumer, whose statistics depend on what is kept.
        droppable: whether the network goes on without it. What no shortcut passes by keeps something.
        behind: a width that the consumer writes, which is cut to as many groups, though to groups of its own choice:
            what both cost is a product, and costs of units must add.
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
    droppable: bool = True
    behind: "Width | None" = None
