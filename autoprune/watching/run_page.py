"""The live page of one run: its state, limits and budgets, the curve, and what is kept of every unit."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from autoprune import live
from autoprune.config import LIMITS, SearchConfig
from autoprune.drawing.markup import Markup, join, tag
from autoprune.drawing.tables import amount, change, count, duration, facts, loss, percent, section
from autoprune.limits_of_runs import SPENT
from autoprune.reports import overview, searching, units
from autoprune.reports.record import Run
from autoprune.watching.folder import Place
from autoprune.watching.run_reader import Seen

Page = dict[str, Any]
"""What the browser gets: a title, parts of HTML by name, and what can be done."""

STATES = {
    "preparing": "Preparing",
    "searching": "Searching",
    "finished": "Finished",
    "stopped": "Stopped",
    "ended": "Not at work",
    "damaged": "Damaged",
}
EXPLAINED = {
    "preparing": "The network is being loaded, and its levels are being made.",
    "stopped": "The search ended before its limits. It can go on where it was.",
    "ended": "No process works on this run, and it has no result: it was killed, or has not begun. It can go on.",
}
NAMES = {"evals": "Evaluations", "tokens": "{items} scored", "seconds": "Time"}


def run_page(place: Place, seen: Seen, notice: str | None = None) -> Page:
    """The page of a run.

    Args:
        place: where it is.
        seen: what is known of it.
        notice: a sentence of the last command that was given on the page.
    """
    run = seen.run
    parts: dict[str, object] = {
        "head": _head(place, seen),
        "notices": join(*(warning(text) for text in (seen.problem, _explained(seen), notice) if text)),
    }
    if run is not None:
        parts |= {
            "facts": facts(_facts(run, seen)),
            "progress": tag("div", _limits(run, seen), _budgets(run), class_="pair"),
            "curve": searching.curve(run),
            "units": units.by_depth(run),
            "result": overview.validation(run),
        }
    config = seen.config
    limits = {} if config is None else {name: getattr(config, name) for name in LIMITS}
    return {
        "title": f"{STATES[seen.state]}: {place.path.name}",
        "state": STATES[seen.state],
        "parts": {name: str(part or "") for name, part in parts.items()},
        "limits": limits,
        "can": {
            "stop": seen.state in ("preparing", "searching"),
            "resume": seen.state in ("finished", "stopped", "ended"),
        },
    }


def heading(place: Place, title: str, state: str | None, *lead: object) -> Markup:
    """The head of any page, with links to what it is a part of."""
    above = place.name.rpartition("/")[0]
    crumbs = [tag("a", "all runs", href="#/")] if place.name else ["autoprune watch"]
    crumbs += [tag("a", above, href=link(above))] if above else []
    shown = None if state is None else tag("span", STATES[state], class_=f"state {state}")
    return join(
        tag("p", *(join(one, " / ") for one in crumbs), place.path.name, class_="kicker"),
        tag("h1", title, " ", shown),
        tag("p", *lead, class_="lead"),
    )


def link(name: str) -> str:
    """The address of a run on the page."""
    return "#/" + quote(name, errors="replace")  # of a name in another encoding nothing can be asked


def warning(text: str) -> Markup:
    """A sentence that must not be overlooked."""
    return tag("p", text, class_="warning")


def bar(name: str, share: float, told: str, bound: float | None = None) -> Markup:
    """A bar with its name and what it says.

    Args:
        name: of what is shown.
        share: that is filled, in [0, 1].
        told: the same in words.
        bound: where a line marks the most that is allowed, in [0, 1].
    """
    drawn = tag(
        "svg",
        tag("rect", width=1000, height=10, class_="rest"),
        tag("rect", width=1000 * min(1.0, max(0.0, share)), height=10, class_="done"),
        None if bound is None else tag("rect", x=1000 * min(1.0, bound) - 2, width=4, height=10, class_="bound"),
        viewBox="0 0 1000 10", preserveAspectRatio="none", role="img", aria_label=f"{name}: {told}",
    )  # fmt: skip
    return tag("div", tag("span", name), tag("strong", told), drawn, class_="bar")


def _explained(seen: Seen) -> str | None:
    told = EXPLAINED.get(seen.state)
    return f"{told} Now: {seen.stage}." if told and seen.stage else told


def _head(place: Place, seen: Seen) -> Markup:
    config = seen.config
    if config is None:
        return heading(place, place.path.name, seen.state)
    bounds = ", ".join(f"{live.shown(metric)} ≤ {bound:g}" for metric, bound in config.budgets.items())
    told = f"{live.shown(config.agent)}, seed {config.seed}, {bounds}. Run "
    return heading(place, model_name(config), seen.state, told, tag("code", place.path))


def model_name(config: SearchConfig) -> str:
    """The model by the last part of its path."""
    return Path(config.model).name if config.model else "embedded model"


def _facts(run: Run, seen: Seen) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    if run.best is not None:
        even = next((one.loss for one in run.scored if one.keys == run.uniform), None)
        against = change(run.best.loss, even)
        beside = f"; uniform {loss(even)}{f' ({against})' if against else ''}" if even is not None else ""
        sample = f"on {count(run.best.sequences, run.words.sample)} of the search split"
        name = "Best loss" if run.result else "Best loss so far"
        found.append(
            (f"{name} ({live.shown(run.config.loss)})", loss(run.best.loss), f"{run.unit_of_loss}, {sample}{beside}")
        )
    failures = f", {count(seen.failed, 'failure')}" if seen.failed else ""
    told = f"{amount(run.spent.tokens)} {run.words.items}{failures}"
    found.append(("Evaluations", f"{run.spent.evals:,}", told))
    if seen.state == "searching":
        found.append(("Speed", "–" if seen.speed is None else amount(seen.speed), f"{run.words.items} per second"))
        left = seen.seconds_left
        found.append(("Time left", "–" if left is None else duration(left), f"{duration(run.spent.seconds)} spent"))
    else:
        found.append(("Time", duration(run.spent.seconds), "of search"))
    found.append(("Workers", *_workers(run)))
    return found


def _workers(run: Run) -> tuple[str, str]:
    config = run.config
    where = f"on {config.device}"
    if config.ray_address:
        return str(config.workers or "Ray"), f"of the cluster {config.ray_address}, {where}"
    if (config.workers or 1) > 1:
        return str(config.workers), f"processes on Ray, {where}"
    return "1", f"the search's own process, {where}"


def _limits(run: Run, seen: Seen) -> Markup:
    rows = []
    for limit, name in SPENT.items():
        bound, used = getattr(run.config, limit), getattr(run.spent, name)
        if bound is None:
            continue
        shown = [duration(value) if name == "seconds" else f"{value:,}" for value in (used, bound)]
        label = NAMES[name].format(items=run.words.items.capitalize())
        rows.append(bar(label, used / bound, f"{shown[0]} of {shown[1]} ({percent(min(used, bound), bound)})"))
    return section("Limits", *(rows or [tag("p", "This search has no limit: its agent ends it.", class_="note")]))


def _budgets(run: Run) -> Markup:
    rows = []
    for metric, bound in run.space.budgets.items():
        dense = run.space.cost(run.space.dense, metric)
        used = run.used(metric, run.best.keys) if run.best else 0.0
        told = f"{percent(used, dense)} of dense, at most {percent(bound, dense)}" if run.best else "nothing scored yet"
        rows.append(bar(live.shown(metric), used / (dense or 1.0), told, bound / (dense or 1.0)))
    return section("Budget of the best", *rows)
