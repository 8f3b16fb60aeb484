"""A unit of the search space, its levels, and the parameters, MACs and cache entries of its groups."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.level import Level, group_levels


@dataclass(frozen=True)
class MatrixShape:
    """How many rows and columns of a weight matrix are kept. Columns are those that one output reads.

    Args:
        rows: rows that are always there, rows of one group, and rows of one bundle of groups.
        columns: the same of the columns.
    """

    rows: tuple[int, int, int]
    columns: tuple[int, int, int]


@dataclass(frozen=True)
class Unit:
    """A unit: an internal width of one block, pruned as one.

    Args:
        name: `<block>.<kind>`, as in `3.mlp`.
        kind: attention, mlp, ...
        block: index of its block.
        groups: how many removable groups it has.
        levels: its levels, the dense one first. No level is denser than the one before it, nor costs more than a denser
            one of its form.
        group_params: parameters that leave with one group.
        fixed_params: parameters that leave only with the last group (bias of the consumer, norms). Costs do not
            count them, so that half of the groups is half of the cost. Dropping the unit saves them as well.
        group_macs: multiply-accumulates of one group per token, without attention scores.
        context_macs: multiply-accumulates of one group per token and context position.
        group_cache: entries of the cache of keys and values of one bundle of groups and position.
        matrices: number of its weight matrices.
        square_params: parameters of a pair of groups, where two widths of a block are cut as one (a bottleneck).
        square_macs: multiply-accumulates of a pair.
        bundle: groups that share some weights (the query heads of a KV group). 1 means that nothing is shared.
        bundle_params: parameters that leave with the last group of a bundle.
        bundle_macs: multiply-accumulates per token of these parameters.
        shapes: of its weight matrices, producers before the consumer; empty where one is no plain matrix.
    """

    name: str
    kind: str
    block: int
    groups: int
    levels: tuple[Level, ...]
    group_params: int
    fixed_params: int = 0
    group_macs: int = 0
    context_macs: int = 0
    group_cache: int = 0
    matrices: int = 0
    square_params: int = 0
    square_macs: int = 0
    bundle: int = 1
    bundle_params: int = 0
    bundle_macs: int = 0
    shapes: tuple[MatrixShape, ...] = ()

    @property
    def kept(self) -> tuple[int, ...]:
        """Groups of which anything stays at each level. For the form `groups` these are all that a level says."""
        return tuple(level.kept for level in self.levels)

    def bundles(self, kept: int) -> int:
        """The number of bundles that are kept at least in part."""
        return -(-kept // self.bundle)

    def params(self, kept: int) -> int:
        """Parameters of `kept` groups."""
        return kept * (self.group_params + kept * self.square_params) + self.bundles(kept) * self.bundle_params

    def sizes(self, kept: int) -> list[tuple[int, int]]:
        """Rows and columns of each of its matrices when `kept` groups stay."""
        bundles = self.bundles(kept)

        def count(of: tuple[int, int, int]) -> int:
            return of[0] + kept * of[1] + bundles * of[2]

        return [(count(shape.rows), count(shape.columns)) for shape in self.shapes]

    def macs(self, kept: int, context: int) -> int:
        """Multiply-accumulates per token when `kept` groups stay and `context` positions are attended to."""
        single = self.group_macs + kept * self.square_macs + context * self.context_macs
        return kept * single + self.bundles(kept) * self.bundle_macs

    def cache(self, kept: int) -> int:
        """Entries of the cache of keys and values of `kept` groups and one position."""
        return self.bundles(kept) * self.group_cache


def kept_groups(groups: int, fractions: Sequence[float], round_to: int = 1, bundle: int = 1) -> tuple[Level, ...]:
    """Levels that keep `fractions` of `groups`, rounded to multiples of `round_to`, denser first.

    The first level keeps all groups. Equal levels are merged, so a unit with few groups has fewer levels. A level keeps
    whole bundles, or some groups of a single bundle: 9 groups in bundles of 3 have the levels 9, 6, 3, 2, 1 and 0.
    """
    kept = {groups}
    for fraction in fractions:
        wanted = fraction * groups
        step = 1 if wanted < bundle > 1 else max(round_to, bundle)
        kept.add(min(groups, step * round(wanted / step)))
    return group_levels(groups, sorted(kept, reverse=True))
