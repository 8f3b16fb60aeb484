"""A result as HTML for a notebook's cell: escaped, without scripts, with the charts of the reports."""

from typing import TYPE_CHECKING

from autoprune import result_table
from autoprune.drawing.kept import kept_chart
from autoprune.drawing.markup import Markup, tag
from autoprune.drawing.style import NOTEBOOK
from autoprune.drawing.tables import figures, note, table
from autoprune.fine_tuned import forecast_told
from autoprune.refit_text import told
from autoprune.result_text import recovered_of

if TYPE_CHECKING:
    from autoprune.result import SearchResult

MOST_KINDS = 6


def html_of(result: "SearchResult") -> str:
    """The table, the budgets, what is kept by layer, and where the run is."""
    kinds = result_table.units(result)
    charts = [kept_chart(kind, kinds[kind], i) for i, kind in enumerate(list(kinds)[:MOST_KINDS])]
    more = len(kinds) - MOST_KINDS
    return tag(
        "div",
        NOTEBOOK,
        tag("p", tag("b", "Search result "), result_table.headline(result)),
        table("Validation", result_table.columns(result), result_table.rows(result)),
        note(refitted) if (refitted := told(result.policy, result.space.words)) else None,
        *_recovered(result),
        *(note("Budget: ", one) for one in result_table.budgets(result)),
        figures(*charts),
        note(f"And {more} more kinds of units.") if more > 0 else None,
        note(
            "Every bar is a unit, from the first block to the last. Dashed: the mean of the uniform policy. Run: ",
            tag("code", result.path),
        ),
        class_="autoprune",
    )


def _recovered(result: "SearchResult") -> list[Markup]:
    """The table of recovery, where the run was fine-tuned."""
    done = recovered_of(result)
    if done is None:
        return []
    head, *rows = done.table(result.space.words)
    ahead = forecast_told(done.law, result.space.words)
    return [table("After fine-tuning", head, rows), *([note(ahead)] if ahead else [])]
