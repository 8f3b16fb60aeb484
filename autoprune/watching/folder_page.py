"""The live page of a folder: a table of its runs and comparisons."""

from collections.abc import Sequence

from autoprune.drawing.markup import Markup, join, tag
from autoprune.drawing.tables import loss, note, section, table
from autoprune.watching.folder import Place
from autoprune.watching.run_page import STATES, Page, heading, link
from autoprune.watching.run_reader import Seen

COLUMNS = ("run", "state", "agent", "budgets", "limits spent", "best loss", "policies")


def folder_page(place: Place, runs: Sequence[tuple[Place, Seen | None]]) -> Page:
    """The page of a folder.

    Args:
        place: where it is.
        runs: what is in it, the newest first; of a comparison nothing is known here.
    """
    shown = section("Runs", run_table(runs)) if runs else note("There is no run in this folder yet.")
    return {
        "title": f"{place.path.name}: runs",
        "state": "",
        "parts": {"head": str(heading(place, "Runs", None, tag("code", place.path))), "runs": str(shown)},
        "limits": {},
        "can": {"stop": False, "resume": False},
    }


def run_table(runs: Sequence[tuple[Place, Seen | None]]) -> Markup:
    """A row for each run, with a link to its page."""
    return table("Runs", COLUMNS, [_row(place, seen) for place, seen in runs])


def _row(place: Place, seen: Seen | None) -> list[object]:
    name = tag("a", place.path.name, href=link(place.name))
    if seen is None:
        return [name, tag("td", "comparison"), *[""] * (len(COLUMNS) - 2)]
    state = tag("td", tag("span", STATES[seen.state], class_=f"state {seen.state}"))
    config, run = seen.config, seen.run
    if config is None:
        return [name, state, *[""] * (len(COLUMNS) - 2)]
    bounds = ", ".join(f"{metric} ≤ {bound:g}" for metric, bound in config.budgets.items())
    share = tag("progress", max=1, value=f"{seen.share:.4f}", aria_label=f"limits spent of {place.path.name}")
    told = join(share, f" {seen.share:.0%}") if run else ""
    best = loss(run.best.loss) if run and run.best else "–"
    return [name, state, config.agent, bounds, tag("td", told), best, f"{run.spent.evals:,}" if run else "–"]
