"""What a family declares of a block: its internal widths, which weights write them, and which weight reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Key = tuple[str, str]
"""Path of a module in the block, and the name of one of its tensors."""

STATISTICS = ("running_mean", "running_var")
"""What a BatchNorm has learned of its inputs."""


@dataclass(frozen=True)
class Segment:
    """A part of a dimension in which every group, or every bundle of groups, has a piece.

    Args:
        size: entries of a piece: rows or columns, channels, experts.
        shared: whether the groups of a bundle use one piece together.
    """

    size: int
    shared: bool = False


@dataclass(frozen=True)
class Slice:
    """A dimension of a module's weight that follows a width.

    Args:
        module: path of the module in the block.
        size: entries of that dimension that belong to one group (in each part): rows or columns, channels.
        dim: the dimension of the weight.
        parts: how many segments of such pieces stand one after another (3 in a fused q|k|v of equal heads).
        shared: whether the entries belong to a bundle of groups, which use them together.
        reads: whether the module reads the width beside the consumer, as gates do: its bias does not follow.
        more: segments behind those, where they are of another size (k and v in a fused q|k|v with fewer KV heads).
        parameter: the weight's name in the module. Of one that has another name, nothing else follows the width.
    """

    module: str
    size: int
    dim: int
    parts: int = 1
    shared: bool = False
    reads: bool = False
    more: tuple[Segment, ...] = ()
    parameter: str = "weight"

    @property
    def key(self) -> Key:
        """Which tensor the weight is."""
        return self.module, self.parameter

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments of the dimension, in order."""
        return (Segment(self.size, self.shared),) * self.parts + self.more


@dataclass(frozen=True)
class Bundles:
    """Groups that use some weights together, as query heads do a KV group's keys and values.

    Bundles stay equal: a level keeps whole bundles, or some of the groups of one bundle alone.

    Args:
        size: groups of a bundle; 1 where groups share nothing.
        attributes: path of an integer attribute in the block -> its value for each bundle of which anything is kept.
        config: configuration attribute of the layer -> the same.
        sizes: paths of the attributes that say how many groups are kept of each bundle.
    """

    size: int = 1
    attributes: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, int] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Width:
    """An internal width of a block: what `producers` write and `consumer` reads.

    Args:
        kind: attention, mlp, ...; with the block's index it names the unit.
        groups: removable pieces.
        producers: weights (and biases) whose output shrinks with the width.
        consumer: the weight whose input shrinks; its bias stays while anything is kept.
        on_drop: module path -> a name in `stand_ins.py`: what stands there when nothing is kept.
        attributes: path of an integer attribute in the block -> its value for each kept group. A path through `config`,
            as `self_attn.config.num_attention_heads`, gives that module a configuration of its own (layer_config.py).
        config: configuration attribute of the layer -> its value for each kept group.
        context_macs: multiply-accumulates of one group per token and context position (attention scores).
        cache: entries of the cache of keys and values of one bundle and position.
        norm: path of the BatchNorm that reads the consumer, whose statistics depend on what is kept.
        droppable: whether the network goes on without it. What no shortcut passes by keeps something.
        behind: a width that the consumer writes, which is cut to as many groups, though to groups of its own choice:
            what both cost is a product, and costs of units must add.
        bundles: which groups share weights.
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
    bundles: Bundles = Bundles()

    @property
    def statistics_keys(self) -> tuple[Key, ...]:
        """Which tensors the norm's mean and variance are."""
        return tuple((self.norm, name) for name in STATISTICS) if self.norm else ()

    @property
    def placed_keys(self) -> tuple[Key, ...]:
        """Tensors that a level may have values of its own for, besides prefixes of the dense ones."""
        return self.consumer.key, *self.statistics_keys

    @property
    def unchanged_keys(self) -> tuple[Key, ...]:
        """Tensors behind the consumer that no level changes, where they are there."""
        bias = (self.consumer.module, "bias")
        return (bias, (self.norm, "weight"), (self.norm, "bias")) if self.norm else (bias,)

    def attributes_of(self, groups: int) -> dict[str, int]:
        """Path of an integer attribute in the block -> its value where so many groups, at least one, are kept."""
        bundles = -(-groups // self.bundles.size)
        return (
            {path: groups * each for path, each in self.attributes.items()}
            | {path: bundles * each for path, each in self.bundles.attributes.items()}
            | dict.fromkeys(self.bundles.sizes, groups // bundles)
        )

    def config_of(self, groups: int) -> dict[str, int]:
        """Configuration attribute of the layer -> its value where so many groups are kept."""
        bundles = -(-groups // self.bundles.size)
        of_bundles = {name: bundles * each for name, each in self.bundles.config.items()}
        return {name: groups * each for name, each in self.config.items()} | of_bundles

    def can_keep(self, groups: int) -> bool:
        """Whether so many groups, at least one, leave bundles of one size."""
        return 0 < groups <= self.groups and (groups < self.bundles.size or groups % self.bundles.size == 0)
