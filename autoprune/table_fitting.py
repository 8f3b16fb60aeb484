"""Fits a table into a number of columns of a terminal. No number is ever cut.

What is tried, in this order: heads are wrapped between words, gaps are narrowed, names are wrapped between words,
columns go into a second table below the first, and last of all names are shortened. A terminal that is narrower than
one number gets the number all the same.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from autoprune.terminal import clean

WIDE, NARROW = 3, 2  # characters between two columns
EDGES = 2  # characters beside a wide table
MIDDLE = 16  # characters that a wrapped name has room for
LEAST = 8  # characters of a name or a head that stay


@dataclass(frozen=True)
class Part:
    """A table that fits.

    Args:
        columns: heads; a line break is where one is wrapped.
        rows: cells.
        wide: whether there is room for wide gaps and for edges.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wide: bool


def parts_of(
    columns: Sequence[str], rows: Sequence[Sequence[str]], left: int, width: int, later: Sequence[str] = ()
) -> list[Part]:
    """The tables that show these columns within a width.

    Args:
        columns: heads.
        rows: cells of each row; cells at the end may be left out.
        left: how many columns hold names. Every table begins with them.
        width: characters of a line.
        later: heads of columns that go into a second table before the others do.
    """
    rows = [[clean(cell) for cell in (*row, *[""] * (len(columns) - len(row)))] for row in rows]
    columns = [clean(column) for column in columns]
    found = fitted(columns, rows, width, left)
    if found:
        return [found]
    order = sorted(range(left, len(columns)), key=lambda i: columns[i] in later)
    tables: list[Part] = []
    while order:
        taken = len(order)
        while taken > 1 and not fitted(*_chosen(columns, rows, left, order[:taken]), width, left):
            taken -= 1
        tables.append(_forced(*_chosen(columns, rows, left, sorted(order[:taken])), left, width))
        order = order[taken:]
    return tables or [Part(columns, rows, wide=False)]


def fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, left: int = 0) -> Part | None:
    """The table with whatever gaps and wrapped heads and names fit; None where none do."""
    cells = [max((_length(row[i]) for row in rows), default=0) for i in range(len(columns))]
    wrapped = [_wrapped(column, cell) for column, cell in zip(columns, cells, strict=True)]
    tried = [Part(columns, rows, wide=True), Part(wrapped, rows, wide=True), Part(wrapped, rows, wide=False)]
    pieces = [max((cell_len(one.rstrip()) for row in rows for one in _pieces(row[i])), default=0) for i in range(left)]
    narrow = _with_names(rows, [max(MIDDLE, piece) for piece in pieces])
    for part in (*tried, Part(wrapped, narrow, wide=False)):
        if needed(part) <= width:
            return part
    return None


def needed(part: Part) -> int:
    """Characters of a line of a table."""
    columns = zip(part.columns, *part.rows, strict=True)
    widths = [max(map(_length, column)) for column in columns]
    gaps = (len(widths) - 1) * (WIDE if part.wide else NARROW)
    return sum(widths) + gaps + (EDGES if part.wide else 0)


def shortened(name: str, length: int) -> str:
    """A name of at most so many characters, without its middle: `policy-gra…masks`."""
    if _length(name) <= length:
        return name
    end = (length - 1) // 2
    return f"{name[: length - 1 - end]}…{name[len(name) - end :] if end else ''}"


def _forced(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int, width: int) -> Part:
    """The table that fits, with shorter names, and with folded heads where that does not help either."""
    part = fitted(columns, rows, width, left)
    if part:
        return part
    cells = [max((_length(row[i]) for row in rows), default=0) for i in range(len(columns))]
    pairs = list(zip(columns, cells, strict=True))
    heads = [_wrapped(column, cell) for column, cell in pairs]
    over = needed(Part(heads, rows, wide=False)) - width
    if left:
        longest = max(range(left), key=lambda i: cells[i])
        length = max(LEAST, cells[longest] - over)
        rows = [[shortened(cell, length) if i == longest else cell for i, cell in enumerate(row)] for row in rows]
    if needed(Part(heads, rows, wide=False)) > width:
        heads = ["\n".join(textwrap.wrap(column, max(cell, LEAST))) for column, cell in pairs]
    return Part(heads, rows, wide=False)


def _with_names(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> list[list[str]]:
    """The rows, whose first cells are wrapped to these widths."""
    left = len(widths)
    return [[*map(_folded, row[:left], widths), *row[left:]] for row in rows]


def _pieces(name: str) -> list[str]:
    """The parts of a name that stay together. It may be wrapped at spaces, and behind slashes, colons and the like."""
    return re.findall(r"[^\s/:_.-]*[/:_.-]+\s*|[^\s/:_.-]+\s*|\s+", name)


def _folded(name: str, width: int) -> str:
    """A name on several lines of this width, between its pieces. Names that fit stay as they are."""
    if _length(name) <= width:
        return name
    lines = [""]
    for piece in _pieces(name):
        if lines[-1] and cell_len(lines[-1]) + cell_len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _chosen(
    columns: Sequence[str], rows: Sequence[Sequence[str]], left: int, chosen: Sequence[int]
) -> tuple[list[str], list[list[str]]]:
    """The columns of names, and those that are chosen."""
    taken = [*range(left), *chosen]
    return [columns[i] for i in taken], [[row[i] for i in taken] for row in rows]


def _wrapped(text: str, least: int) -> str:
    """A text on several lines, as narrow as its longest word, but not narrower than the least that is needed."""
    width = max([least, 1, *map(cell_len, text.split())])
    return "\n".join(textwrap.wrap(text, width)) or text


def _length(text: str) -> int:
    return max(map(cell_len, text.split("\n")))
