"""A comparison as text, as HTML for a notebook's cell, and as a frame."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoprune import live
from autoprune.drawing.charts import Series, colour, legend, line_chart
from autoprune.drawing.markup import tag
from autoprune.drawing.style import NOTEBOOK
from autoprune.drawing.tables import figure, loss, note, table
from autoprune.result_frame import frame
from autoprune.result_text import in_columns
from autoprune.task_choice import words_of
from autoprune.terminal import clean

if TYPE_CHECKING:
    from pandas import DataFrame

    from autoprune.comparing.comparison import Comparison


def text_of(compared: "Comparison") -> str:
    """The table of agents, and where the comparison is."""
    lines = [f"Comparison({_headline(compared)})", *in_columns([_columns(compared), *_rows(compared)])]
    lines += [f"  {one['run']} failed: {one['failed']}" for one in compared.league["searches"] if "failed" in one]
    lines += [f"  comparison: {compared.path}"]
    return "\n".join(map(clean, lines))


def html_of(compared: "Comparison") -> str:
    """The table of agents, their learning curves, and where the comparison is."""
    items = words_of(compared.league).items
    called = live.told_apart(compared.curves)
    curves = [
        Series(called[agent], x, middle, low, high)
        for agent, (x, low, middle, high) in ((agent, one["tokens"]) for agent, one in compared.curves.items())
    ]
    chart = line_chart(curves, "Learning curves", items, "loss", log_x=True, step=True) if curves else None
    names = legend([(one.name, colour(i)) for i, one in enumerate(curves)])
    return tag(
        "div",
        NOTEBOOK,
        tag("p", tag("b", "Comparison "), _headline(compared)),
        table("Agents", _columns(compared), _rows(compared)),
        figure("Loss on a sample of the validation split, median and quartiles", chart, names) if curves else None,
        *(note(one["run"], " failed: ", one["failed"]) for one in compared.league["searches"] if "failed" in one),
        note("Comparison: ", tag("code", compared.path)),
        class_="autoprune",
    )


def frame_of(compared: "Comparison") -> "DataFrame":
    """A row for every agent, best first, with the columns of the table in `league.json`."""
    return frame([_flat(row) for row in compared.table]).set_index("agent")


def _headline(compared: "Comparison") -> str:
    league = compared.league
    ended = sum("failed" not in one for one in league["searches"])
    total = len(league["agents"]) * len(league["seeds"])
    return f"{ended} of {total} searches{', interrupted' if compared.interrupted else ''}"


def _columns(compared: "Comparison") -> list[str]:
    words = words_of(compared.league)
    return [
        "agent",
        "seeds",
        f"loss ({live.shown(compared.league['config']['loss'])})",
        "sd",
        "behind",
        words.items,
        "seconds",
    ]


def _rows(compared: "Comparison") -> list[list[str]]:
    called = live.told_apart(row["agent"] for row in compared.table)
    known = [
        [
            called[row["agent"]],
            str(row["seeds"]),
            loss(row["loss"]) if row["seeds"] else "",
            "" if row["sd"] is None else loss(row["sd"]),
            "" if row["behind"] is None else f"+{loss(row['behind'])}",
            f"{row['tokens']:,.0f}" if row["seeds"] else "",
            f"{row['seconds']:.1f}" if row["seeds"] else "",
        ]
        for row in compared.table
    ]
    ranked = {row["agent"] for row in compared.table}
    others = {name: one for name, one in compared.league["references"].items() if name not in ranked}
    return known + [[name, "", loss(one["loss"]), "", "", "", ""] for name, one in others.items()]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """`best` and `worst` are a seed and a loss each."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key in ("best", "worst"):
            flat |= {f"{key}_{name}": None if value is None else value[name] for name in ("seed", "loss")}
        else:
            flat[key] = value
    return flat
