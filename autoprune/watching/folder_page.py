"""The live page of a folder: a table of its runs and comparisons."""

from collections.abc import Sequence

from autoprune import live
from autoprune.drawing.markup import Markup, tag
from autoprune.drawing.tables import loss, note, table
from autoprune.watching.folder import Place, planned, progress_of
from autoprune.watching.run_page import STATES, Page, heading, link
from autoprune.watching.run_reader import Seen, State

COLUMNS = ("run", "state", "agent", "budgets", "done", "best loss", "evaluations")


def folder_page(place: Place, runs: Sequence[tuple[Place, Seen | None]]) -> Page:
    """The page of a folder.

    Args:
        place: where it is.
        runs: what is in it, the newest first; of a comparison nothing is known here.
    """
    shown = run_table(runs) if runs else note("There is no run in this folder yet.")
    told = (f"{len(runs)} runs and comparisons, the newest first. ", tag("code", place.path))
    return {
        "title": f"{place.path.name}: runs",
        "state": "",
        "parts": {"head": str(heading(place, place.path.resolve().name, None, *told)), "runs": str(shown)},
        "limits": {},
        "can": {"stop": False, "resume": False},
    }


def run_table(runs: Sequence[tuple[Place, Seen | None]]) -> Markup:
    """A row for each run, with a link to its page."""
    return table("Runs", COLUMNS, [_row(place, seen) for place, seen in runs])


def _row(place: Place, seen: Seen | None) -> list[object]:
    name = tag("a", place.path.name, href=link(place.name))
    if seen is None:
        state, ended, total = progress_of(place.path)
        agents = "comparison of " + ", ".join(dict.fromkeys(run.rpartition("-s")[0] for run in planned(place.path)))
        share = _share(place, ended / (total or 1), f"{ended} of {total} searches")
        return [name, _state(state), agents, "", share, "", ""]
    config, run = seen.config, seen.run
    if config is None:
        return [name, _state(seen.state), *[""] * (len(COLUMNS) - 2)]
    bounds = ", ".join(f"{live.shown(metric)} ≤ {bound:g}" for metric, bound in config.budgets.items())
    best = loss(run.best.loss) if run and run.best else "–"
    scored = f"{run.spent.evals:,}" if run else "–"
    done = _share(place, seen.share, f"{seen.share:.0%}") if run else ""
    return [name, _state(seen.state), live.shown(config.agent), bounds, done, best, scored]


def _state(state: State) -> Markup:
    return tag("td", tag("span", STATES[state], class_=f"state {state}"))


def _share(place: Place, share: float, told: str) -> Markup:
    bar = tag("progress", max=1, value=f"{share:.4f}", aria_label=f"done of {place.path.name}")
    return tag("td", bar, told)
