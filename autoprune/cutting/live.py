"""A width of a live block: permutes its groups, keeps some, restores all. The code is the same for every family.

A family declares `Width`s (widths.py). A `LiveWidth` keeps the dense tensors and swaps views of them in and out of the
block's parameters, so that a level needs no copy. Other files have the inputs of the consumer (reading.py), the costs
(counting.py), and zeros in the place of removed groups (zeros.py).
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from autoprune.cutting import counting
from autoprune.cutting.cuts import cuts_of
from autoprune.cutting.dense import Dense
from autoprune.cutting.dropping import Dropping
from autoprune.cutting.layer_config import Counts
from autoprune.cutting.layouts import Depthwise, consumer_layout, layout_of
from autoprune.cutting.widths import Key, Width
from autoprune.level import Level
from autoprune.space import Unit


@dataclass(frozen=True)
class LevelWeights:
    """The tensors that a level puts in the place of dense ones. None means their prefixes.

    Args:
        consumer: the consumer's weight, in its own layout.
        norm: mean and variance of the consumer's outputs, `[2, out]`.
        behind: of the width behind.
        others: further weights, in their modules' layouts, cut to what is kept.
    """

    consumer: Tensor | None = None
    norm: Tensor | None = None
    behind: "LevelWeights | None" = None
    others: Mapping[Key, Tensor] = field(default_factory=dict)


AS_DENSE = LevelWeights()


class LiveWidth:
    """A width of a live block, and the levels that are swapped into it.

    Args:
        block: the block, whose parameters are replaced in place.
        width: what to cut.
        before: the width that this one is behind.

    Attributes:
        kept: the number of groups kept now.
        dense: the dense tensors, shared with the widths behind.
        cuts: all tensors that follow the width; the consumer's weight is the last.
        layout: of the consumer's weight.
        bring: gives a consumer's weight where this width's tensors are, which `move` changes (streaming.py).
        weights: what was given with what is kept now.
        positions: module path -> how often its matrix is multiplied with for one image.
    """

    def __init__(self, block: nn.Module, width: Width, before: "LiveWidth | None" = None) -> None:
        self.block, self.width = block, width
        self._placed_before = () if before is None else before.width.placed_keys
        self.kept = width.groups
        self.dense: Dense = Dense() if before is None else before.dense  # what both cut is one tensor
        own = dict.fromkeys(s.module for s in (*width.producers, width.consumer))
        own |= {width.norm: None} if width.norm else {}
        self.dense.take(block, own)
        self._layouts = [(self.dense.modules[path], layout_of(self.dense.modules[path])) for path in own]
        self.cuts = tuple(cuts_of(self.dense, width))
        self._unchanged = [key for key in width.unchanged_keys if key in self.dense.tensors]
        self.layout = consumer_layout(self.dense.tensors[width.consumer.key], width.consumer.dim)
        self.dropping, self.counts = Dropping(block, width.on_drop), Counts(block, width)
        self.behind = LiveWidth(block, width.behind, self) if width.behind else None
        self.positions: dict[str, int] = {}
        self.bring: Callable[[Tensor], Tensor] = _as_it_is
        self.weights = AS_DENSE
        self._index: Tensor | None = None  # what `select` kept

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def links(self) -> "list[LiveWidth]":
        """This width and those behind it."""
        return [self, *(self.behind.links if self.behind else [])]

    @property
    def consumer(self) -> nn.Module:
        """The module whose input is this width."""
        return self.dense.modules[self.width.consumer.module]

    @property
    def consumer_weight(self) -> Tensor:
        """The consumer's dense weight with the width last, `[out, groups * size]`: a view."""
        return self.layout.matrix(self.dense.tensors[self.width.consumer.key])

    @property
    def norm(self) -> nn.Module | None:
        """The BatchNorm that reads the consumer, where there is one."""
        return self.dense.modules[self.width.norm] if self.width.norm else None

    def modules(self) -> Iterator[nn.Module]:
        """The modules that are cut, and those that leave with the sub-block when it is dropped."""
        yield from self.dense.modules.values()
        yield from self.dropping.inside()

    @functools.cached_property
    def matrix_keys(self) -> tuple[Key, ...]:
        """The weight matrices that follow this width and those behind it, each once, those of producers first.

        Depthwise convolutions have a weight for each channel and are no matrices.
        """
        keys = dict.fromkeys(cut.key for link in self.links for cut in link.cuts if cut.is_weight)
        return tuple(key for key in keys if self.dense.tensors[key].dim() > 1 and not self._is_depthwise(key[0]))

    def _is_depthwise(self, path: str) -> bool:
        return isinstance(layout_of(self.dense.modules[path]), Depthwise)

    def unit(self, block: int, levels: tuple[Level, ...]) -> Unit:
        """The numbers of this width as a `Unit` of the search space (torch-free)."""
        return counting.unit_of(self, block, levels)

    # -- what is kept ----------------------------------------------------------------------------------------------

    def permute(self, *orders: Tensor) -> None:
        """Put the groups in `order`, most important first, so that a level is a prefix. Outputs do not change.

        Args:
            orders: `[G]` for this width, and for each behind it.
        """
        for link, order in zip(self.links, orders, strict=True):
            for cut in link.cuts:
                self.dense.tensors[cut.key] = cut.segments.taken(self.dense.tensors[cut.key], cut.dim, order)
        self.keep(self.kept)

    def keep(self, groups: int, weights: LevelWeights = AS_DENSE) -> None:
        """Keep the first `groups` groups: views are swapped in, or the sub-block is dropped at 0.

        Args:
            weights: of this level, where it has its own.
        """
        assert groups == 0 or self.width.can_keep(groups), f"{groups} of {self.width.groups} leave unequal bundles"
        self._index = None
        self._put_statistics(weights.norm)
        prefixes = ((cut.key, cut.segments.prefix(self._source(cut.key), cut.dim, groups)) for cut in self.cuts)
        self._put(groups, prefixes, weights)
        if self.behind is not None:
            self.behind.keep(groups, weights.behind or AS_DENSE)

    def select(self, index: Tensor, consumer: Tensor | None = None) -> None:
        """Keep any groups, by their number in the present order, ascending: their rows and columns are copied.

        Args:
            index: `[K]` int64.
            consumer: the consumer's weight for these groups, in its own layout, if it was reconstructed.
        """
        self._index = index
        copies = ((cut.key, cut.segments.taken(self.dense.tensors[cut.key], cut.dim, index)) for cut in self.cuts)
        self._put(len(index), copies, LevelWeights(consumer))

    def restore(self) -> None:
        """Keep all groups, with the dense weights."""
        self.keep(self.width.groups)

    def bare(self) -> bool:
        """Take off what a form put in the place of the dropped sub-block. Returns whether there was something."""
        replaced = self.dropping.replacement is not None
        self.dropping.restore()
        return replaced

    def move(self, tensors: Mapping[Key, Tensor]) -> None:
        """Compute with copies of the dense tensors that are elsewhere from now on; what is kept stays as it is."""
        self.dense.tensors.update(tensors)
        for key in tensors:  # those of a dropped sub-block would hold on to the old ones
            self.dense.restore(key)
        if self._index is None:
            self.keep(self.kept, self.weights)
        else:
            self.select(self._index, self.weights.consumer)

    def follow(self, groups: int) -> None:
        """Set the modules' shape attributes and numbers of groups to their present values."""
        self.kept = groups
        for module, layout in self._layouts:
            layout.follow(module)
        self.counts.set(groups)

    def _source(self, key: Key) -> Tensor:
        """A dense tensor, or what the width before has just put there."""
        return self.dense.live(key).data if key in self._placed_before else self.dense.tensors[key]

    def _put_statistics(self, statistics: Tensor | None) -> None:
        for i, key in enumerate(self.width.statistics_keys):
            dense = self.dense.tensors[key]  # levels are float32 in any network
            self.dense.put(key, (dense if statistics is None else statistics[i]).to(dense))

    def _put(self, groups: int, tensors: Iterable[tuple[Key, Tensor]], weights: LevelWeights) -> None:
        """Swap tensors of `groups` groups in, or stand-ins for the sub-block at 0, which needs none."""
        self.dropping.drop(groups == 0)
        self.kept, self.weights = groups, weights
        if groups == 0:
            self.dense.restore(self.width.consumer.key)  # lets go of the weight of a level
            return
        for key, tensor in tensors:
            self.dense.put(key, tensor)
        if weights.consumer is not None:
            self.dense.put(self.width.consumer.key, self.bring(weights.consumer))
        for key, tensor in weights.others.items():
            self.dense.put(key, self.bring(tensor))
        for key in self._unchanged:  # padding a dropped sub-block had put zeros there
            self.dense.restore(key)
        self.follow(groups)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
