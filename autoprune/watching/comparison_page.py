"""The live page of a comparison: its searches as they run, and the league of those that have ended."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autoprune import live
from autoprune.comparing.results import FILE, load_results
from autoprune.config import LIMITS, SearchConfig, load_config
from autoprune.drawing.charts import Series, colour, legend, line_chart
from autoprune.drawing.markup import Markup, join, tag
from autoprune.drawing.scales import drawable
from autoprune.drawing.tables import amount, facts, figure, figures, loss, note, section
from autoprune.errors import UserError
from autoprune.limits_of_runs import SPENT
from autoprune.reports.comparison import agent_table, learning_curves
from autoprune.watching.folder import Place, planned, progress_of
from autoprune.watching.folder_page import run_table
from autoprune.watching.run_page import STATES, Page, heading, model_name, warning
from autoprune.watching.run_reader import Seen, State

LINES = 16  # of the chart of all searches, at most


def comparison_page(place: Place, runs: Sequence[tuple[Place, Seen]], notice: str | None = None) -> Page:
    """The page of a comparison.

    Args:
        place: where it is.
        runs: its searches that have begun, and what is known of them.
        notice: a sentence of the last command that was given on the page.
    """
    problems, results, config = [notice] if notice else [], None, None
    try:
        config = load_config(place.path / "config.yaml")
        results = load_results(place.path) if (place.path / FILE).is_file() else None
    except UserError as error:
        problems.append(str(error))
    names = planned(place.path)
    state, ended, total = progress_of(place.path)
    first = results["table"][0] if results and results["table"] else None
    parts: dict[str, object] = {
        "head": _head(place, state, config),
        "notices": join(*map(warning, problems)),
        "facts": facts(_facts(first, ended, total, config)),
        "league": agent_table(results) if results and first else None,
        "curves": learning_curves(results) if results and first else None,
        "searches": _searches(runs, names),
        "live": _live(runs),
    }
    return {
        "title": f"{STATES[state]}: {place.path.name}",
        "state": STATES[state],
        "parts": {name: str(part or "") for name, part in parts.items()},
        "limits": {} if config is None else {name: getattr(config, name) for name in LIMITS},
        "can": {"stop": state == "searching", "resume": state != "searching"},
    }


def _facts(
    first: Mapping[str, Any] | None, ended: int, total: int, config: SearchConfig | None
) -> list[tuple[str, str, str]]:
    told = [("Searches", f"{ended} of {total}", "have ended")]
    if first is not None:
        told.insert(0, ("First", live.shown(first["agent"]), f"loss {loss(first['loss'])}, mean over its seeds so far"))
    for limit, name in SPENT.items():
        bound = None if config is None else getattr(config, limit)
        if bound is not None:
            told.append(("Limit of a search", amount(bound), {"evals": "evaluations"}.get(name, name)))
    return told


def _head(place: Place, state: State, config: SearchConfig | None) -> Markup:
    if config is None:
        return heading(place, place.path.name, state)
    bounds = ", ".join(f"{live.shown(metric)} ≤ {bound:g}" for metric, bound in config.budgets.items())
    return heading(place, model_name(config), state, f"Comparison, {bounds}. ", tag("code", place.path))


def _searches(runs: Sequence[tuple[Place, Seen]], names: Iterable[str]) -> Markup:
    begun = {place.path.name for place, _ in runs}
    waiting = [name for name in names if name not in begun]
    told = f"Not begun yet: {', '.join(waiting)}." if waiting else "All searches have begun."
    return section("Searches", note(told), run_table(runs))


def _live(runs: Sequence[tuple[Place, Seen]]) -> Markup | None:
    """The best loss so far of every search."""
    series, agents = [], list(dict.fromkeys(live.shown(seen.config.agent) for _, seen in runs if seen.config))
    for place, seen in runs[:LINES]:
        points = [(x, y) for x, _, y in (seen.run.history if seen.run else ()) if drawable(y)]
        if points:
            series.append(Series(place.path.name, *zip(*points, strict=True)))
    if not series:
        return None
    label = f"Best loss so far of {len(series)} searches of {', '.join(agents)}"
    items = next(seen.run.words.items for _, seen in runs if seen.run)
    chart = line_chart(series, label, f"{items} scored", "loss of the best so far", log_x=True, step=True)
    return section(
        "Searches so far",
        note("Each search’s loss is on its own sample at that time, so searches compare only roughly here."),
        figures(figure(None, chart)),
        legend([(one.name, colour(i)) for i, one in enumerate(series)]),
    )
