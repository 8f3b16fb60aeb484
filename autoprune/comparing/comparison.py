"""A comparison: agents and seeds search the same assembly within the same limits, and their results are one table.

A comparison's directory holds `compare.yaml` (who takes part), `config.yaml` (what is common to all), an ordinary run
for each search, `<agent>-s<seed>/`, with `curve.json` besides, and `league.json` (results.py), written after every
search. Seeds are the outer loop: a comparison that is stopped has whole rounds. The same command goes on where it was.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune import limits_of_runs, rundir
from autoprune.callbacks import SILENT, Callback
from autoprune.comparing import shown
from autoprune.comparing.plan import ComparisonPlan
from autoprune.comparing.results import (
    FILE,
    PLAN,
    SCHEMA,
    curves_of,
    is_finished,
    load_results,
    outcome_of,
    table_of,
)  # fmt: skip
from autoprune.comparing.search_runner import SearchRunner
from autoprune.config import LIMITS, PLACES, SearchConfig, load_config
from autoprune.errors import StopSearch, UserError
from autoprune.files.writing import write_atomically
from autoprune.forms import check_together
from autoprune.journal import FILE as JOURNAL
from autoprune.journal import check_journal
from autoprune.policy import to_json
from autoprune.ports.agent import load_agent
from autoprune.space_file import words_of_run
from autoprune.study import prepare, workers_of
from autoprune.task_choice import words_of
from autoprune.tracking.following import tracked

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class Comparison:
    """The result of a comparison. Printed, or as the last line of a notebook's cell, it shows how agents compare.

    Args:
        path: its directory.
        league: as saved in `league.json` (autoprune/comparing/results.py).
        interrupted: whether a callback stopped it; the same call goes on.
    """

    path: Path
    league: dict[str, Any]
    interrupted: bool = False

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each agent, best first."""
        rows: list[dict[str, Any]] = self.league["table"]
        return rows

    @property
    def curves(self) -> dict[str, dict[str, tuple[list[float], ...]]]:
        """agent -> "tokens" and "seconds" -> x, lower quartile, median and upper quartile of the loss over seeds."""
        return curves_of(self.league)

    def to_frame(self) -> "DataFrame":
        """A row of `table` for each agent.

        Raises:
            UserError: pandas is not installed.
        """
        return shown.frame_of(self)

    def __repr__(self) -> str:
        return shown.text_of(self)

    def _repr_html_(self) -> str:
        return shown.html_of(self)


def load(out: Path) -> Comparison:
    """The results of a comparison, as they are on disk.

    Raises:
        UserError: there are none, or they are damaged.
    """
    plan, results = ComparisonPlan.load(out), load_results(out)
    return Comparison(out, results, interrupted=len(results["searches"]) < len(plan.searches()))


def is_comparison(path: Path) -> bool:
    """Whether a comparison was begun there."""
    return (path / PLAN).is_file() and (path / "config.yaml").is_file()


def compare(
    config: SearchConfig, agents: list[str], seeds: list[int], out: Path, callbacks: Callback = SILENT
) -> Comparison:
    """Search with every agent and seed, or continue the comparison in `out`.

    A comparison that cannot begin leaves nothing behind; an agent that fails is named in the results.

    Args:
        config: common to all; its agent and seed do not count.
        agents: names, as `autoprune list agents` has them.
        seeds: one search each for every agent.
        out: the directory; what is there must be of the same settings, to which agents and seeds may have been added.
        callbacks: are told how it goes.

    Raises:
        UserError: a setting is wrong, `out` holds something else, or searches of something else (another text, levels
            of an earlier version), or no search has an answer.
    """
    if config.rounds > 1:
        raise UserError("a comparison is of searches in one round, on one network: leave --rounds.")
    if config.storage and not config.study_name:
        config = config.model_copy(update={"study_name": out.resolve().name})
    plan = ComparisonPlan.of(config, agents, seeds)
    for agent in plan.agents:
        check_together(config.model_copy(update={"agent": agent}), load_agent(agent).masks)
    callbacks = tracked(config.track, callbacks, (out, config))
    before = ComparisonPlan.load(out) if is_comparison(out) else None
    if before is None:
        rundir.create(out)
    else:
        plan.check_added_to(before, out)
    return _run(plan, before, out, callbacks)


def resume(out: Path, callbacks: Callback = SILENT, places: Mapping[str, Any] | None = None) -> Comparison:
    """Continue a comparison. `places` are as in `study.resume`; limits are those of every search."""
    plan = ComparisonPlan.load(out, places)
    callbacks = tracked(plan.config.track, callbacks, (out, plan.config))
    for name in plan.searches():
        limits_of_runs.check(out / name, plan.config, places or {})
    kept = {name: value for name, value in (places or {}).items() if name not in LIMITS}
    return _run(plan, ComparisonPlan.load(out, kept), out, callbacks)


def _run(plan: ComparisonPlan, before: ComparisonPlan | None, out: Path, callbacks: Callback) -> Comparison:
    searches = plan.searches()
    with rundir.locked(out), ExitStack() as stack:
        try:
            plan.save(out)
            left = {name: config for name, config in searches.items() if not _is_done(out / name, config)}
            pool = stack.enter_context(workers_of(plan.config, callbacks)) if left else None
            assembly = prepare(plan.config, callbacks, _any_masks(plan), out) if left else None
            runner = None if assembly is None else SearchRunner(assembly, pool, out, callbacks)
            if assembly is not None:
                for name in searches.keys() - left.keys():  # the table ranks what was scored alike
                    check_journal(out / name / JOURNAL, assembly.subject)
                assembly.save_metrics(out)
        except UserError:
            _undo(out, before)
            raise
        failed: dict[str, str] = {}
        results = _save_results(plan, out, failed)
        numbers, stopped = {name: number for number, name in enumerate(searches, 1)}, False
        try:
            for name, error in runner.run(left) if runner else ():
                if error is not None:
                    failed[name] = str(error)
                results = _save_results(plan, out, failed)
                ended = next(one for one in results["searches"] if one["run"] == name)
                callbacks.on_search_end(numbers[name], len(searches), ended | {"items": words_of(results).items})
        except StopSearch:
            stopped = True
    if len(failed) == len(searches):
        raise UserError(f"no search has an answer; the first, {next(iter(failed))}: {next(iter(failed.values()))}")
    return Comparison(out, results, stopped)


def _save_results(plan: ComparisonPlan, out: Path, failed: dict[str, str]) -> dict[str, Any]:
    """Write the results of the searches that have ended."""
    searches, references = [], dict[str, dict[str, Any]]()
    words = next(filter(None, map(words_of_run, (out / name for name in plan.searches()))), None)
    words = words or plan.config.chosen_task().words
    for name, config in plan.searches().items():
        own = {"agent": config.agent, "seed": config.seed, "run": name}
        if name in failed:
            searches.append(own | {"failed": failed[name]})
        elif is_finished(out / name):
            outcome, references = outcome_of(out / name)
            searches.append(own | outcome)
    results = {
        "schema": SCHEMA,
        "task": words.task,
        "words": asdict(words),
        "config": plan.config.model_dump(exclude={"agent", "seed", "study_name", *PLACES}),
        "agents": list(plan.agents),
        "seeds": list(plan.seeds),
        "references": references,
        "searches": searches,
        "table": table_of(searches, words),
    }
    write_atomically(out / FILE, to_json(results, indent=2) + "\n")
    return results


def _is_done(run: Path, config: SearchConfig) -> bool:
    return is_finished(run) and load_config(run / "config.yaml").same_search(config)


def _any_masks(plan: ComparisonPlan) -> bool:
    return any(load_agent(agent).masks for agent in plan.agents)


def _undo(out: Path, before: ComparisonPlan | None) -> None:
    """Leave a comparison that could not go on as it was."""
    if before is not None:
        before.save(out)
        return
    (out / PLAN).unlink(missing_ok=True)
    rundir.discard(out)
