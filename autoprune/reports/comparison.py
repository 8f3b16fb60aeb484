"""The page of a comparison: the table of agents, learning curves with quartiles, every search, and how to repeat it."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune import live
from autoprune.comparing.results import curves_of
from autoprune.cost_lines import budgets_asked
from autoprune.drawing.charts import Series, colour, legend, line_chart
from autoprune.drawing.markup import Markup, join, tag
from autoprune.drawing.scales import drawable
from autoprune.drawing.tables import amount, duration, facts, figure, figures, loss, note, quality, section, table
from autoprune.task_choice import words_of
from autoprune.wording import Words

Json = Mapping[str, Any]
LOG_FROM = 20  # times as much at the end as at the start: early steps would be squeezed together


def body(path: Path, results: Json) -> Markup:
    """Everything below the page's title.

    Args:
        path: the comparison's directory.
        results: as `league.json` has it.
    """
    return join(
        _head(path, results),
        tag("main", agent_table(results), learning_curves(results), _searches(results), _origin(path, results)),
    )


def title(results: Json) -> str:
    """What is compared, on what."""
    return f"{_subject(results)}: {', '.join(live.told_apart(results['agents']).values())}"


def _subject(results: Json) -> str:
    return Path(live.shown(results["config"].get("model") or "embedded model")).name


def _words(results: Json) -> Words:
    return words_of(results)


def _unit(results: Json) -> str:
    return live.shown(_words(results).unit(str(results["config"].get("loss", "kl"))))


def _head(path: Path, results: Json) -> Markup:
    config, references = results["config"], results["references"]
    bounds = budgets_asked(config["budgets"], config.get("of", "prunable"))
    first = results["table"][0]
    asked, ended = len(results["agents"]) * len(results["seeds"]), len(results["searches"])
    rows = [
        ("First", live.shown(first["agent"]), f"loss {loss(first['loss'])}, mean over seeds"),
        *((name.capitalize(), loss(row["loss"]), _reference(results, row)) for name, row in references.items()),
        ("Searches", f"{ended} of {asked}", f"{len(results['agents'])} agents, {len(results['seeds'])} seeds"),
    ]
    return tag(
        "header",
        tag("p", "autoprune comparison", class_="kicker"),
        tag("h1", _subject(results)),
        tag("p", f"{bounds}; {_limits(config, _words(results).items)} a search. ", tag("code", path), class_="lead"),
        facts(rows),
    )


def _reference(results: Json, row: Json) -> str:
    said = _words(results)
    shown = said.quality.averages and said.quality.key in row
    known = f"{said.quality.name} {quality(said, row)}, " if shown else ""
    return f"{known}the same for all"


def _limits(config: Json, items: str) -> str:
    told = (("max_tokens", items), ("max_evals", "evaluations"), ("max_time", "seconds"))
    return ", ".join(f"{config[key]:,} {name}" for key, name in told if config.get(key)) or "no limit"


def agent_table(results: Json) -> Markup:
    """The table of agents."""
    called = live.told_apart(row["agent"] for row in results["table"])
    known = _words(results).quality
    columns = [
        "agent",
        "rank",
        "seeds",
        "loss",
        "sd",
        *([known.name] if known.averages else []),
        "best seed",
        "worst seed",
    ]
    columns += ["behind the first", _words(results).items, "time"]
    rows = [
        [
            called[row["agent"]],
            str(row["rank"]),
            f"{row['seeds']} ({row['failed']} failed)" if row["failed"] else str(row["seeds"]),
            loss(row["loss"]),
            "–" if row["sd"] is None else loss(row["sd"]),
            *([quality(_words(results), row)] if known.averages else []),
            _end(row["best"]),
            _end(row["worst"]),
            _behind(row),
            amount(row["tokens"]),
            "–" if row["seconds"] is None or not drawable(row["seconds"]) else duration(row["seconds"]),
        ]
        for row in results["table"]
    ]
    said = (
        f"Loss on the validation split, which no search has seen: mean over seeds, {_unit(results)}. "
        "The difference to the first is given with its standard error."
    )
    return section("Agents", note(said), table("Agents", columns, rows))


def _end(end: Json | None) -> str:
    return "–" if end is None else f"{loss(end['loss'])} (seed {end['seed']})"


def _behind(row: Json) -> str:
    if row["behind"] is None:
        return ""
    error = "" if row["behind_error"] is None else f" ± {loss(row['behind_error'])}"
    return f"+{loss(row['behind'])}{error}"


def learning_curves(results: Json) -> Markup | None:
    """What each agent would have answered over time; nothing before a search has ended."""
    curves = curves_of(results)
    if not curves:
        return None
    ranks = {row["agent"]: row["rank"] for row in results["table"]}
    agents = sorted(curves, key=lambda agent: ranks[agent])
    called = live.told_apart(agents)
    charts = []
    for column, name in (("tokens", f"{_words(results).items} scored"), ("seconds", "seconds of search")):
        series = []
        for agent in agents:
            x, low, middle, high = curves[agent][column]
            series.append(Series(called[agent], x, middle, low, high))
        xs = [x for one in series for x in one.x if x > 0]
        log = bool(xs) and max(xs) / min(xs) > LOG_FROM
        label = (
            f"Loss of the incumbent against {name}, median and quartiles over seeds, of {', '.join(called.values())}"
        )
        charts.append(figure(None, line_chart(series, label, name, f"loss ({_unit(results)})", log_x=log, step=True)))
    said = (
        "What each search would have answered at that time, scored afterwards on one sample of the validation split: "
        "median over seeds, and a band between the quartiles."
    )
    keys = legend([(called[agent], colour(i)) for i, agent in enumerate(agents)])
    return section("Learning curves", note(said), figures(*charts), keys)


def _searches(results: Json) -> Markup:
    said = _words(results)
    columns = ["search", "loss", said.quality.name, "parameters", f"MACs/{said.item}", "search loss", said.items]
    columns += ["evaluations", "time"]
    rows = []
    for one in results["searches"]:
        if "failed" in one:
            rows.append(
                [one["run"], tag("td", f"failed: {one['failed']}", colspan=len(columns) - 1, class_="description")]
            )
            continue
        rows.append([
            one["run"], loss(one["loss"]), quality(said, one, 2), amount(one["params"]), amount(one["macs"]),
            loss(one["search_loss"]), amount(one["tokens"]), f"{one['evals']:,}", duration(one["seconds"]),
        ])  # fmt: skip
    told = (
        "Each is an ordinary run in this comparison’s directory, with a report of its own. Parameters and MACs are of "
        "the whole network."
    )
    return section("Searches", note(told), table("Searches", columns, rows))


def _origin(path: Path, results: Json) -> Markup:
    rows = [
        [name, tag("td", "none" if value is None else value if isinstance(value, str) else json.dumps(value))]
        for name, value in results["config"].items()
        if name not in ("agent", "seed", "storage")
    ]
    where = shlex.quote(str(path))
    lines = [f"autoprune resume {where}", f"autoprune report {where}/{shlex.quote(results['searches'][0]['run'])}"]
    return join(
        section("Configuration", table("Configuration", ("setting", "value"), rows, "words")),
        section("Go on", tag("pre", tag("code", "\n".join(lines)), tabindex=0)),
    )
