"""The order in which units grow together, from all at their last level to all dense: what `uniform` follows."""

import itertools
from collections.abc import Sequence

import numpy as np

from autoprune.level import form_of
from autoprune.unit import Unit

GOLDEN = 0.6180339887  # multiples of it, modulo 1, are spread evenly however many are taken


def growth(units: Sequence[Unit]) -> list[int]:
    """Numbers of the units in the order in which they grow, each once for every level that it grows by.

    At each point of the order, each kind of unit keeps the same share of its groups, as nearly as its levels allow.
    Where the share lies between two levels of a kind, some of its units are at the denser one, spread over the depth.
    """
    spread_U = (np.arange(len(units)) * GOLDEN) % 1
    steps = []
    for kind in {unit.kind for unit in units}:
        members = sorted((u for u, unit in enumerate(units) if unit.kind == kind), key=spread_U.__getitem__)
        for rank, u in enumerate(members):
            turn, groups = (rank + 0.5) / len(members), units[u].groups
            sizes = [form_of(level).size(level, groups) for level in units[u].levels]
            for denser, sparser in itertools.pairwise(sizes):
                steps.append(((sparser + turn * (denser - sparser)) / groups, spread_U[u], u))
    return [u for _share, _spread, u in sorted(steps)]
