"""Tables, sections and facts: the few forms that the parts of a page share, and how their numbers are written."""

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.drawing.markup import Markup, tag
from autoprune.drawing.scales import drawable, short
from autoprune.wording import Words


def section(title: str, *parts: object) -> Markup:
    """A part of the page under its heading."""
    return tag("section", tag("h2", title), *parts)


def note(*parts: object) -> Markup:
    """A remark below a heading."""
    return tag("p", *parts, class_="note")


def figures(*charts: object) -> Markup:
    """Charts side by side where there is room."""
    return tag("div", *charts, class_="charts")


def figure(title: str | None, *parts: object) -> Markup:
    """A chart with its heading and legend."""
    return tag("figure", tag("h3", title) if title else None, *parts)


def facts(rows: Sequence[tuple[str, str, str]]) -> Markup:
    """Large numbers: what, how much, compared with what."""
    cells = (tag("div", tag("dt", what), tag("dd", value, tag("small", more))) for what, value, more in rows)
    return tag("dl", *cells, class_="facts")


def table(label: str, columns: Sequence[str], rows: Sequence[Sequence[object]], class_: str | None = None) -> Markup:
    """A table that scrolls in its own container; the first column names the rows."""
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(cell if _is_cell(cell) else tag("td", cell) for cell in row[1:]))
        for row in rows
    ]
    content = tag("table", tag("thead", head) if any(columns) else None, tag("tbody", *body), class_=class_)
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def _is_cell(cell: object) -> bool:
    return isinstance(cell, Markup) and cell.startswith("<td")


def loss(value: float | None) -> str:
    """Four decimals; what overflowed is infinite."""
    if value is None or not drawable(value):
        return "∞"
    return f"{round(value, 4) + 0.0:.4f}"  # no -0.0000


def quality(said: Words, row: Mapping[str, Any], decimals: int = 1) -> str:
    """What people know a network's quality by, as an accuracy in percent, or a perplexity.

    Args:
        said: the words of the task, which name it.
        row: what was measured of the network, by key.
        decimals: of a number of four digits below 1000.
    """
    value = row.get(said.quality.key)
    if said.quality.form == "decimals":
        return loss(value)
    if said.quality.form == "percent":
        return "–" if value is None else f"{100 * value:.2f}\N{NO-BREAK SPACE}%"
    if value is None or not drawable(value):
        return "∞"
    return f"{value:.{decimals}f}" if value < 1000 else amount(value)


def amount(value: float | None) -> str:
    """`22.6M`; a dash where nothing is known."""
    return short(value) if value is not None and drawable(value) else "–"


def percent(part: float, whole: float) -> str:
    """`49.7 %` of a whole."""
    return f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else "–"


def change(value: float | None, reference: float | None) -> str:
    """`−14.3 %` against a reference; nothing where that says nothing."""
    if value is None or reference is None or not drawable(value) or not drawable(reference) or reference <= 0:
        return ""
    return f"{100 * (value / reference - 1):+.1f}\N{NO-BREAK SPACE}%".replace("-", "−")


def count(number: int, thing: str) -> str:
    """`1 sequence`, `1,024 sequences`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 10 s`, `9.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"
