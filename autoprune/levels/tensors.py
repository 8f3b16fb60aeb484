"""The tensors of a unit's file in the level store, by their names: orders, the weights of levels, and what forms own.

store.py says how they are named.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from autoprune.cutting.live import LevelWeights
from autoprune.level import Level
from autoprune.levels.form import live_form

BEHIND = "behind."
SHARED = ("level", "norm")
"""Names of tensors that mean the same in every form."""


def orders_of(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Orders of the groups of a width and of those behind it."""
    names = [name for name in sorted(tensors, key=len) if name.split(".")[-1] == "order"]
    return [tensors[name] for name in names]


def weights_by_level(tensors: Mapping[str, Tensor], levels: int) -> list[LevelWeights]:
    """The weights of each of so many levels, of a width and of those behind it."""
    found: list[LevelWeights] = []
    links = len(orders_of(tensors))
    for level in range(levels):
        weights = None
        for prefix in (BEHIND * link for link in reversed(range(links))):
            consumer, norm = (tensors.get(f"{prefix}{what}.{level}") for what in SHARED)
            weights = LevelWeights(consumer, norm, weights)
        assert weights is not None
        found.append(weights)
    return found


def owned(tensors: Mapping[str, Tensor], levels: Sequence[Level]) -> list[dict[str, Tensor]]:
    """The tensors of each level that only its form knows, by name, with those of the level that it borrows from."""
    found: list[dict[str, Tensor]] = [{} for _ in levels]
    for name, tensor in tensors.items():
        what, _, level = name.rpartition(".")
        if what and what.split(".")[-1] not in SHARED and level != "order":
            found[int(level)][what] = tensor
    lenders = [live_form(level).borrows(level, levels) for level in levels]
    return [own if lender is None else found[lender] | own for own, lender in zip(found, lenders, strict=True)]
