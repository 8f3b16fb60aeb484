"""The results of a comparison: what every search found, and the table of agents. They are read from the runs.

`league.json`, schema `autoprune.league/1`:

    {"schema": "autoprune.league/1", "task": "text", "words": {...}, "config": {...},
     "agents": [...], "seeds": [...],
     "references": {"dense": {"loss": ..., "ce": ..., "perplexity": ..., "params": ..., "macs": ...}, "uniform": {...}},
     "searches": [{"agent": "ppo", "seed": 0, "run": "ppo-s0", "policy": "ppo-s0/policy.json",
                   "loss": ..., "ce": ..., "perplexity": ..., "params": ..., "macs": ...,
                   "search_loss": ..., "search_tokens": ..., "tokens": ..., "evals": ..., "seconds": ...,
                   "curve": [[tokens, seconds, loss], ...]},
                  {"agent": "ppo", "seed": 1, "run": "ppo-s1", "failed": "why, in a sentence"}, ...],
     "table": [{"rank": 1, "agent": "ppo", "seeds": 1, "failed": 1, "loss": ..., "sd": ...,
                "best": {"seed": 0, "loss": ...}, "worst": {...}, "search_loss": ..., "tokens": ..., "evals": ...,
                "seconds": ..., "behind": ..., "behind_error": ...}, ...]}

`loss`, and what else the task measures (of a text `ce` and `perplexity`, of images `ce` and `accuracy`), are on the
validation split, a curve's losses on a sample of it. What is called tokens are the task's items. A row of the table has
means over the seeds (one of the quality if that can be averaged), the standard deviation `sd` of their losses, and the
difference to the first row with its standard error.

`params` and `macs` are of the whole network. null: overflowed or, of an `sd` or an error, one seed is too few. Paths
are within the comparison's directory; searches that have not ended are not there.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from autoprune.comparing.curves import Point, quartiles
from autoprune.comparing.results_file import ComparisonFile, Found
from autoprune.files.names import slug
from autoprune.files.reading import explained, read_json
from autoprune.wording import Measure, Words

Json = dict[str, Any]
PLAN = "compare.yaml"  # of a comparison, which is known by it
FILE = "league.json"
SCHEMA = "autoprune.league/1"
CURVE = "curve.json"
COLUMNS = ("tokens", "seconds")


def run_name(agent: str, seed: int) -> str:
    """`<agent>-s<seed>`, whatever the agent is called."""
    return f"{slug(agent)}-s{seed}"


def is_finished(run: Path) -> bool:
    """Whether a search of a comparison ended by itself and its curve is known."""
    needed = [run / name for name in ("policy.json", "result.json", CURVE)]
    if not all(path.is_file() for path in needed):
        return False
    with explained("the result", run / "result.json", "remove the run to search again"):
        return not read_json(run / "result.json").get("interrupted", False)


def outcome_of(run: Path) -> tuple[Json, dict[str, Json]]:
    """What a finished search found, and how the reference policies do.

    Raises:
        UserError: a file of the run is damaged.
    """
    with explained("the run", run, "remove it to search again"):
        policy, result = read_json(run / "policy.json"), read_json(run / "result.json")
        measured = {row["name"]: _measured(row) for row in result["table"]}
        outcome = {"run": run.name, "policy": f"{run.name}/policy.json", **measured.pop("best")}
        outcome |= {f"search_{key}": policy["losses"][name] for key, name in _SEARCH.items()}
        outcome |= {key: result["spent"][key] for key in ("tokens", "evals", "seconds")}
        outcome |= {"curve": read_json(run / CURVE)}
        Found.model_validate(outcome)
    return outcome, measured


def table_of(searches: Sequence[Mapping[str, Any]], words: Words) -> list[Json]:
    """Agents by their mean validation loss, the lowest first; those without an answer last.

    Args:
        searches: as `league.json` has them.
        words: of the task, which say whether the mean of its quality is shown.
    """
    agents = dict.fromkeys(one["agent"] for one in searches)
    entries = [(agent, [one for one in searches if one["agent"] == agent]) for agent in agents]
    rows = sorted(
        (_row(agent, own, words.quality) for agent, own in entries), key=lambda row: (row["seeds"] == 0, row["loss"])
    )
    first = rows[0] if rows else {}
    for rank, row in enumerate(rows, 1):
        row["rank"] = rank
        row["behind"], row["behind_error"] = (None, None) if row is first else _behind(row, first)
    return rows


def curves_of(results: Mapping[str, Any]) -> dict[str, dict[str, tuple[list[float], ...]]]:
    """Learning curves of each agent, on the validation sample that all searches share.

    Returns:
        agent -> "tokens" and "seconds" -> (x, lower quartile, median, upper quartile) over the seeds, each ascending in
        x. Begins where half of the seeds have an answer; agents without one are left out.
    """
    curves: dict[str, list[list[Point]]] = {}
    for one in results["searches"]:
        points = [(tokens, seconds, loss) for tokens, seconds, loss in one.get("curve", ()) if loss is not None]
        if points:
            curves.setdefault(one["agent"], []).append(points)
    return {
        agent: {name: _lists(runs, column) for column, name in enumerate(COLUMNS)} for agent, runs in curves.items()
    }


def load_results(path: Path) -> Json:
    """The results in a comparison's directory.

    Raises:
        UserError: there is none, or it is damaged.
    """
    with explained("the results", path / FILE, "`autoprune resume` writes it anew"):
        results: Json = read_json(path / FILE)
        ComparisonFile.model_validate(results)
    return results


_SEARCH = {"loss": "search", "tokens": "search_tokens"}


def _measured(row: Mapping[str, Any]) -> Json:
    """A row of `result.json` without what is of this machine; old rows have an accuracy of None where there is none."""
    left_out = {"name", "tokens_per_second", "speed_spread", "costs"}
    left_out |= {"accuracy"} if row.get("accuracy") is None else set()
    return {key.removeprefix("validation_"): value for key, value in row.items() if key not in left_out}


def _row(agent: str, searches: Sequence[Mapping[str, Any]], quality: Measure) -> Json:
    done = [one for one in searches if "failed" not in one]
    row: Json = {"rank": 0, "agent": agent, "seeds": len(done), "failed": len(searches) - len(done)}
    by_loss = sorted(done, key=lambda one: _number(one["loss"]))
    ends = [{"seed": one["seed"], "loss": one["loss"]} for one in by_loss]
    row |= {"loss": _mean(done, "loss"), "sd": _sd(done), "best": None, "worst": None}
    if ends:
        row |= {"best": ends[0], "worst": ends[-1]}
    known = [quality.key] if quality.averages and done and all(quality.key in one for one in done) else []
    return row | {key: _mean(done, key) for key in (*known, "search_loss", "tokens", "evals", "seconds")}


def _behind(row: Mapping[str, Any], first: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Mean loss of a row minus the first one's, and the standard error of that for independent samples."""
    if not math.isfinite(row["loss"]):
        return None, None
    sds = [(one["sd"], one["seeds"]) for one in (row, first)]
    known = all(sd is not None for sd, _ in sds)
    return row["loss"] - first["loss"], math.sqrt(sum(sd**2 / n for sd, n in sds)) if known else None


def _mean(searches: Sequence[Mapping[str, Any]], key: str) -> float:
    return fmean(_number(one[key]) for one in searches) if searches else math.inf


def _sd(searches: Sequence[Mapping[str, Any]]) -> float | None:
    losses = [_number(one["loss"]) for one in searches]
    return stdev(losses) if len(losses) > 1 and all(map(math.isfinite, losses)) else None


def _number(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _lists(runs: Sequence[Sequence[Point]], column: int) -> tuple[list[float], ...]:
    grid_G, quartiles_3G = quartiles(runs, column)
    return grid_G.tolist(), *quartiles_3G.tolist()
