"""A result as text that fits a terminal of 80 columns."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoprune import result_table
from autoprune.drawing.scales import thin
from autoprune.errors import UserError
from autoprune.fine_tuned import Finetuned
from autoprune.refit_text import told
from autoprune.result_table import mean
from autoprune.table_fitting import parts_of
from autoprune.terminal import clean

if TYPE_CHECKING:
    from autoprune.result import SearchResult

WIDTH = 78  # characters of a line
HEIGHTS = "▁▂▃▄▅▆▇█"
MOST_COLUMNS, MOST_KINDS = 50, 8  # characters of a row of units; kinds of units that are shown
NAME = 14  # characters of a name


def text_of(result: "SearchResult") -> str:
    """The table, the budgets, what is kept by layer, and where the run is."""
    lines = [f"SearchResult({result_table.headline(result)})"]
    for part in parts_of(result_table.columns(result), result_table.rows(result), 1, WIDTH):
        lines += in_columns([*_head(part.columns), *part.rows])
    for one in result_table.budgets(result):
        lines += textwrap.wrap(f"budget: {one}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    if refitted := told(result.policy, result.space.words):
        lines += textwrap.wrap(refitted, WIDTH, initial_indent="  ", subsequent_indent="    ")
    if done := recovered_of(result):
        lines += ["  after fine-tuning:", *in_columns(done.table(result.space.words))]
    lines += _kept(result)
    lines += [f"  run: {result.path}"]
    if result.interrupted:
        lines += [f"  go on: autoprune.resume('{result.path}')"]
    return "\n".join(map(clean, lines))


def recovered_of(result: "SearchResult") -> Finetuned | None:
    """What fine-tuning left; None before it, and where its file is damaged, which the report says."""
    try:
        return result.recovered
    except UserError:
        return None


def _head(columns: Sequence[str]) -> list[list[str]]:
    """The heads of a table as rows: one for each line of those that are wrapped, which end in the last."""
    lines = [column.split("\n") for column in columns]
    most = max(map(len, lines))
    return [list(row) for row in zip(*([""] * (most - len(one)) + one for one in lines), strict=True)]


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table: the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _kept(result: "SearchResult") -> list[str]:
    """A row of bars for every kind of unit."""
    kinds = result_table.units(result)
    lines = []
    for kind, members in list(kinds.items())[:MOST_KINDS]:
        shares = [level.density for _, level, _ in members]
        lines.append(f"  {_short(kind).ljust(NAME)}  {bars(shares)}  {mean(shares):.0%}")
    if len(kinds) > MOST_KINDS:
        lines.append(f"  and {len(kinds) - MOST_KINDS} more kinds of units")
    return ["  kept of every unit, first block to last:", *lines]


def bars(shares: Sequence[float]) -> str:
    """`▇▅▁·█`: one character a unit; a unit that is gone is a dot. Neighbours share one where there are too many."""
    edges = [*thin(len(shares) + 1, MOST_COLUMNS + 1)]
    means = [mean(shares[a:b]) for a, b in itertools.pairwise(edges)]
    return "".join("·" if share <= 0 else HEIGHTS[min(7, math.ceil(share * 8) - 1)] for share in means)


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
