"""Which tensors of a block follow a width, and along which dimension."""

from collections.abc import Iterator
from dataclasses import dataclass

from autoprune.cutting.dense import Dense
from autoprune.cutting.segments import Segments
from autoprune.cutting.widths import STATISTICS, Key, Slice, Width

FOLLOWS = ("weight", "bias", *STATISTICS)
"""Names of tensors that follow a width in the modules that write it."""


@dataclass(frozen=True)
class Cut:
    """A tensor that follows a width.

    Args:
        key: the module and the name of the tensor.
        dim: the dimension that is cut.
        segments: how groups lie along it.
        is_weight: whether it is the module's weight, and not a bias or a statistic.
    """

    key: Key
    dim: int
    segments: Segments
    is_weight: bool


def cuts_of(dense: Dense, width: Width) -> Iterator[Cut]:
    """Every tensor that follows a width. The consumer's weight is the last; its bias does not follow."""
    for s in (*width.producers, width.consumer):
        segments = Segments(width.groups, width.bundles.size, s.segments)
        alone = s.reads or s is width.consumer or s.parameter != "weight"
        for name in [s.parameter] if alone else _with_rows(dense, s, segments.length(width.groups)):
            is_weight = name == s.parameter
            yield Cut((s.module, name), s.dim if is_weight else 0, segments, is_weight)


def _with_rows(dense: Dense, s: Slice, entries: int) -> list[str]:
    """Names of a module's tensors that have a row for each of so many channels that it writes."""
    names = [name for path, name in dense.tensors if path == s.module]
    return [name for name in names if name in FOLLOWS or len(dense.tensors[s.module, name]) == entries]
