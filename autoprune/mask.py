"""Masks: proposals that keep or remove every group separately. Levels, in contrast, keep a prefix of the groups.

Groups are numbered in the order of the level store, the most important first. The level that keeps k groups is
therefore the mask whose first k bits are set.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


@dataclass(frozen=True, order=True)
class Mask:
    """One bit for each group of each unit. Masks are hashable and take an eighth of a byte for each group.

    Args:
        bits: the units one after another, each padded to whole bytes, the first group in the highest bit.
    """

    bits: bytes

    @classmethod
    def pack(cls, kept: Sequence[Bools]) -> "Mask":
        """Make a mask from booleans `[G]` for each unit, true where the group is kept."""
        return cls(b"".join(np.packbits(kept_G).tobytes() for kept_G in kept))

    @classmethod
    def prefix(cls, kept: Sequence[int], groups: Sequence[int]) -> "Mask":
        """The first `kept` of the `groups` of each unit: what a level keeps."""
        return cls.pack([np.arange(g) < k for k, g in zip(kept, groups, strict=True)])

    def unpack(self, groups: Sequence[int]) -> list[Bools]:
        """Which groups of each unit are kept, `[G]` booleans each.

        Args:
            groups: of each unit.

        Raises:
            ValueError: the bits are not those of such units.
        """
        kept = [np.unpackbits(bits).astype(bool) for bits in self.split(groups)]
        if any(kept_P[g:].any() for kept_P, g in zip(kept, groups, strict=True)):
            raise ValueError("a mask keeps groups beyond a unit's last")
        return [kept_P[:g] for kept_P, g in zip(kept, groups, strict=True)]

    def split(self, groups: Sequence[int]) -> list[NDArray[np.uint8]]:
        """The packed bits of each unit.

        Raises:
            ValueError: the bits are not those of such units.
        """
        sizes = [-(-g // 8) for g in groups]
        if len(self.bits) != sum(sizes):
            raise ValueError(f"a mask of {len(self.bits)} bytes, where these units have {sum(sizes)}")
        return np.split(np.frombuffer(self.bits, np.uint8), np.cumsum(sizes)[:-1])
