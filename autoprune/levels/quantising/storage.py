"""The storage of a quantised matrix in bytes, as it lies in a file. No tensors are needed.

The layout is `pack-quantized` of compressed-tensors: the codes of a row one after another in 32-bit words, a scale for
each group of columns, zero points packed along the rows, and the shape as two 64-bit integers.
"""

from dataclasses import dataclass

from autoprune.errors import UserError

BITS = (8, 6, 5, 4, 3, 2)
"""Bits of a weight that are offered, most first."""
GROUP = 128
"""Columns that share a scale, where the user says nothing."""
LEAST = 4
"""A group is made at most so many times smaller to divide the columns."""
WORD = 32
SHAPE_BYTES = 16


@dataclass(frozen=True)
class Grid:
    """How weights are rounded.

    Args:
        bits: of a weight.
        group: columns that share a scale, at most; `group_of` says how many do.
        symmetric: whether the grid has its zero in the middle, so that no zero points are stored.
    """

    bits: int
    group: int = GROUP
    symmetric: bool = False

    @property
    def most(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1


def group_of(columns: int, wanted: int) -> int:
    """Columns that share a scale: the most, up to `wanted`, that divide the columns.

    Where only very small groups would divide them, it is `wanted`, and the last group has fewer columns.
    """
    if columns <= wanted:
        return max(1, columns)
    divisors = (size for size in range(wanted, wanted // LEAST, -1) if columns % size == 0)
    return next(divisors, wanted)


def groups_of(columns: int, wanted: int) -> int:
    """Number of scales of a row."""
    return -(-columns // group_of(columns, wanted)) if columns else 0


def words(count: int, bits: int) -> int:
    """Number of 32-bit words that hold so many codes."""
    return -(-count * bits // WORD)


def stored_bytes(rows: int, columns: int, grid: Grid, itemsize: int) -> int:
    """Bytes of a quantised matrix: codes, scales, zero points and shape.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        grid: how it is rounded.
        itemsize: bytes of a scale, which has the dtype of the checkpoint.
    """
    if not rows * columns:
        return 0
    groups = groups_of(columns, grid.group)
    zeros = 0 if grid.symmetric else 4 * words(rows, grid.bits) * groups
    return 4 * rows * words(columns, grid.bits) + rows * groups * itemsize + zeros + SHAPE_BYTES


def check_bits(bits: object) -> int:
    """The bits of a weight, as a user gave them.

    Raises:
        UserError: they are not offered.
    """
    number = int(bits) if isinstance(bits, str) and bits.isdecimal() else bits
    if isinstance(number, bool) or number not in BITS:
        offered = ", ".join(map(str, BITS))
        raise UserError(f"bits={bits} is not offered: a weight has {offered} bits.")
    assert isinstance(number, int)
    return number
