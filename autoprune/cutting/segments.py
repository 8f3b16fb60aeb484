"""How the groups of a width lie along one dimension of a tensor.

The dimension consists of one or several segments. In a segment, every group has a piece of the same size, or the groups
of a bundle share one. For example, a fused projection of queries, keys and values has three segments: one piece for
each query head, and one piece of keys and one of values for each bundle of heads.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.cutting.widths import Segment


@dataclass(frozen=True)
class Segments:
    """The entries of a dimension that belong to each group.

    Args:
        groups: of the width.
        bundle: neighbouring groups that share pieces, where segments are shared.
        segments: in order.
    """

    groups: int
    bundle: int
    segments: tuple[Segment, ...]

    def length(self, groups: int) -> int:
        """Entries that so many groups use."""
        return sum(self._pieces(segment, groups) * segment.size for segment in self.segments)

    def entries(self, index: Tensor) -> Tensor:
        """The entries of some groups, segment by segment, groups in this order.

        Args:
            index: numbers of the groups, `[K]` int64; those of a bundle follow each other.
        """
        found = []
        for start, segment in self._placed():
            pieces = torch.unique_consecutive(index // self.bundle) if segment.shared else index
            within = pieces[:, None] * segment.size + torch.arange(segment.size, device=index.device)
            found.append(within.flatten() + start)
        return torch.cat(found)

    def taken(self, tensor: Tensor, dim: int, index: Tensor) -> Tensor:
        """A copy with the entries of some groups alone, in this order."""
        return tensor.index_select(dim, self.entries(index.to(tensor.device)))

    def prefix(self, tensor: Tensor, dim: int, groups: int) -> Tensor:
        """The entries of the first groups: a view, but for some groups of several segments."""
        if len(self.segments) == 1 or groups == self.groups:
            return tensor.narrow(dim, 0, self.length(groups))
        # segments are no neighbours of each other: the one case that copies
        ends = [(start, self._pieces(segment, groups) * segment.size) for start, segment in self._placed()]
        return torch.cat([tensor.narrow(dim, start, entries) for start, entries in ends], dim)

    def padded(self, tensor: Tensor, dim: int, kept: int, groups: int) -> Tensor:
        """A tensor of the first `kept` groups, with zeros in the place of further ones up to `groups`."""
        parts: list[Tensor] = []
        sizes = [self._pieces(segment, kept) * segment.size for segment in self.segments]
        for segment, piece in zip(self.segments, torch.split(tensor, sizes, dim), strict=True):
            shape = list(piece.shape)
            shape[dim] = self._pieces(segment, groups) * segment.size - piece.shape[dim]
            parts += [piece, piece.new_zeros(shape)]
        return torch.cat(parts, dim)

    def _placed(self) -> Iterator[tuple[int, Segment]]:
        """Every segment with its first entry."""
        start = 0
        for segment in self.segments:
            yield start, segment
            start += self._pieces(segment, self.groups) * segment.size

    def _pieces(self, segment: Segment, groups: int) -> int:
        return -(-groups // self.bundle) if segment.shared else groups
