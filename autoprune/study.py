"""One search from configuration to result: assemble, search, finish. A resumed search also replays its journal."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprune import cautions, limits_of_runs, live, objects, rounds_file, run_state, rundir, stopping, usercode
from autoprune.arguments import made
from autoprune.assembly import Assembly, assemble
from autoprune.callbacks import SILENT, BestTeller, Callback
from autoprune.config import DEFAULT_TOKENS, SearchConfig, load_config
from autoprune.coverage import cover
from autoprune.data.stdin import without_stdin
from autoprune.errors import LimitReached, UserError
from autoprune.exporting import export_policy as export_policy  # scripts import it from here
from autoprune.files.writing import write_atomically
from autoprune.journal import FILE as JOURNAL
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.policy import BEST, FOUND, to_json
from autoprune.ports.agent import Agent, load_agent
from autoprune.ports.scorer import Scorer
from autoprune.provenance import make_policy
from autoprune.records.record import Record, finalists
from autoprune.records.storage import check_storage
from autoprune.refit_choice import refit_of
from autoprune.result import SearchResult
from autoprune.space import Proposal
from autoprune.space_file import save_space
from autoprune.tracking.following import tracked
from autoprune.validation import front_names, measure, save_front, total_macs
from autoprune.workers.pool import WorkerPool, is_wanted


def start(config: SearchConfig, out: Path | None = None, callbacks: Callback = SILENT) -> SearchResult:
    """Run a new search in `out` (by default a new folder in `runs/`).

    The configuration is saved first, so that a run that is killed during preparation can be resumed. A run that cannot
    begin leaves no files.
    """
    config = limited(config)
    make_agent(config.agent, config.agent_settings())
    check_storage(config.storage)
    callbacks = tracked(config.track, callbacks)
    out = out or rundir.new_run_path(config.agent, config.seed)
    rundir.create(out)
    with rundir.locked(out), ExitStack() as stack:
        try:
            config.save(out / "config.yaml")
            callbacks.on_start(config, out)
            pool = stack.enter_context(workers_of(config, callbacks))
            assembly = prepare(config, callbacks, run=out)
            scorer = scorer_of(assembly, pool)
        except Exception:  # the user's own code raises what it likes
            rundir.discard(out)
            raise
        return _search(assembly, scorer, out, callbacks)


def resume(out: Path, callbacks: Callback = SILENT, places: Mapping[str, Any] | None = None) -> SearchResult:
    """Continue a run where its journal ends. A finished run is finished again.

    Args:
        out: the run's directory.
        callbacks: are told how it goes.
        places: settings of where it is scored (`config.PLACES`), which replace the run's own, and new limits
            (`config.LIMITS`), which the run keeps.
    """
    rundir.check_is_run(out)
    with rundir.locked(out):
        limits_of_runs.change(out, places or {})
        config = load_config(out / "config.yaml", dict(places or {}))
        callbacks = tracked(config.track, callbacks)
        callbacks.on_start(config, out)
        return search_in(out, config, callbacks)


def search_in(out: Path, config: SearchConfig, callbacks: Callback, limits: Limits | None = None) -> SearchResult:
    """Begin or continue the search of a run that the caller has locked.

    Args:
        out: the run's directory.
        config: configuration of the run.
        callbacks: are told how it goes.
        limits: of this search; None is those of the configuration.
    """
    with workers_of(config, callbacks) as pool:
        assembly = prepare(config, callbacks, run=out)
        return _search(assembly, scorer_of(assembly, pool), out, callbacks, limits=limits)


def search_on(
    assembly: Assembly,
    scorer: Scorer,
    config: SearchConfig,
    out: Path,
    callbacks: Callback,
    turn: AbstractContextManager[object] | None = None,
) -> SearchResult:
    """Begin or continue a search in the run `out`, on a given assembly.

    Args:
        assembly: may be of a configuration with another agent, agent settings, seed and limits.
        scorer: scores on its search split.
        config: configuration of this search. It is saved in the run.
        out: the run's directory. It is made if it does not exist.
        callbacks: are told how it goes.
        turn: a lock that is held while the network is used, because several searches may share it.
    """
    if not (out / "config.yaml").exists():
        rundir.create(out)
    with rundir.locked(out):
        limits_of_runs.save(out, config)
        callbacks.on_start(config, out)
        return _search(replace(assembly, config=config), scorer, out, callbacks, turn)


def workers_of(config: SearchConfig, callbacks: Callback) -> AbstractContextManager[WorkerPool | None]:
    """The pool of workers, which starts while the search is prepared. None means scoring in this process."""
    if not is_wanted(config):
        return nullcontext()
    objects.check_sent(config.model_dump())
    return WorkerPool(config, callbacks.on_notice)


def scorer_of(assembly: Assembly, pool: WorkerPool | None) -> Scorer:
    """The scorer for the search split: a pool of workers, or an evaluator in this process."""
    return pool.scorer(assembly) if pool else assembly.evaluator(assembly.splits.search, assembly.config.loss)


def limited(config: SearchConfig) -> SearchConfig:
    """The configuration with a limit, `DEFAULT_TOKENS` if it has none, and with a file in the place of stdin."""
    config = config.model_copy(update={"data": without_stdin(config.data)})
    if config.max_evals is None and config.max_tokens is None and config.max_time is None:
        return config.model_copy(update={"max_tokens": DEFAULT_TOKENS})
    return config


def prepare(config: SearchConfig, callbacks: Callback, masks: bool | None = None, run: Path | None = None) -> Assembly:
    """Make the assembly that searches run on. `masks` and `run` are as in `assemble`.

    Raises:
        UserError: as `assemble`, or the dense network's own loss is not finite.
    """
    stage = callbacks.on_stage if run is None else run_state.preparing(run, callbacks.on_stage)
    assembly = assemble(config, stage, masks, run)
    _check_dense(assembly)
    for notice in [*assembly.notices(), *assembly.task.notices(assembly)]:
        callbacks.on_notice(notice)
    cautions.warn(assembly)
    coverage = cover(
        assembly.view, assembly.space, assembly.loaded.n_params, total_macs(assembly, assembly.space.dense)
    )
    for notice in filter(None, (coverage.told(), coverage.warning(config.of))):
        callbacks.on_notice(notice)
    return replace(assembly, coverage=coverage)


def _search(
    assembly: Assembly,
    scorer: Scorer,
    out: Path,
    callbacks: Callback,
    turn: AbstractContextManager[object] | None = None,
    limits: Limits | None = None,
) -> SearchResult:
    config = assembly.config
    journal = Journal(out / JOURNAL, assembly.subject)
    limits = limits or Limits(config.max_evals, config.max_tokens, config.max_time)
    agent = make_agent(config.agent, config.agent_settings())
    save_space(out / "space.json", assembly.space, assembly.store.statistics, assembly.coverage)
    assembly.save_metrics(out)
    with closing(journal), _recorded(assembly, out, journal, agent) as record:
        best_teller, state = BestTeller(callbacks), run_state.RunState(out)

        def scored(objective: Objective) -> None:
            record.write()
            state.scored(objective)
            callbacks.on_scores(objective)
            best_teller.look(objective)
            if stopping.heard(out):
                objective.stop()

        objective = Objective(assembly.space, scorer, limits, journal, scored, assembly.store.statistics, out)
        interrupted = _run(agent, objective, config.seed) or objective.stopped
        best_teller.look(objective)
        with usercode.blaming("agent", agent):
            agent.save(out)
            front = _front(agent, objective)
        with turn or nullcontext():
            result = _finish(assembly, objective, front, out, callbacks, interrupted)
            best = objective.best
            chosen = dict.fromkeys([best, *(front or finalists(objective.archive(), best))])
            # in a database of others, trials cannot be replaced when an interrupted search has gone on
            last = [] if interrupted and config.storage else [(one, *objective.loss(one)) for one in chosen]
            record.answer(best, *objective.loss(best), last)
            callbacks.on_end(result)
        return result


def _run(agent: Agent, objective: Objective, seed: int) -> bool:
    """The search itself; whether Ctrl-C ended it, which ends the search and not the run."""
    try:
        # overflowed networks lose infinitely: agents may compare two of them without a warning from numpy
        with suppress(LimitReached), usercode.blaming("agent", agent), np.errstate(invalid="ignore"):
            agent.search(objective, np.random.default_rng(seed))
    except KeyboardInterrupt:
        if not objective.archive():
            raise
        return True
    return False


def _front(agent: Agent, objective: Objective) -> list[Proposal]:
    """The agent's front, which is the user's own perhaps: policies that were scored."""
    front: Any = agent.front(objective)
    for policy in front if isinstance(front, list | tuple) else [front]:
        try:
            objective.loss(policy)
        except (LookupError, TypeError):
            raise UserError(
                f"the agent {usercode.located(agent)} has {usercode.shown(policy)} in its front, which is a list of "
                "policies that were scored."
            ) from None
    return list(front)


@contextmanager
def _recorded(assembly: Assembly, out: Path, journal: Journal, agent: Agent) -> Iterator[Record]:
    """The run's Optuna study; what could not be written of it is a warning, since the journal has it."""
    config = assembly.config
    record = Record(
        out, journal, assembly.space, config.sequence_length, config.storage, config.study_name, config.agent,
        list(assembly.space.budgets) if agent.pareto else (),
    )  # fmt: skip
    try:
        yield record
    finally:
        problem = record.close()
        if problem:
            warnings.warn(problem, RuntimeWarning, stacklevel=2)


def make_agent(name: str, options: dict[str, Any]) -> Agent:
    """An agent by name with its settings.

    Raises:
        UserError: the agent does not exist, or a setting is unknown or has a wrong value.
    """
    return made(load_agent(name), options, f"the agent '{live.shown(name)}'", "setting", "agent_options.")


def _check_dense(assembly: Assembly) -> None:
    loss = assembly.evaluator(assembly.splits.search[:1], assembly.task.label_loss, once=True).score(
        [assembly.space.dense], [0]
    )
    if not np.isfinite(loss).all():
        raise UserError(
            f"the dense network's own loss on the calibration data is {float(loss[0, 0])}: its weights or dtype "
            f"({next(assembly.loaded.model.parameters()).dtype}) are broken; try dtype=float32."
        )


def _finish(
    assembly: Assembly, objective: Objective, front: list[Proposal], out: Path, callbacks: Callback, interrupted: bool
) -> SearchResult:
    best = objective.best
    search_loss, search_tokens = objective.loss(best)
    if not np.isfinite(search_loss):
        raise UserError("the search scored no policy with a finite loss: look at the model's weights, dtype and data.")
    kept = refit_of(assembly, best, callbacks)
    named = {"dense": assembly.space.dense, "uniform": assembly.space.uniform(), BEST: kept.network if kept else best}
    others = front_names(assembly.space, front) | ({FOUND: best} if kept else {})
    table = measure(assembly, named | others, callbacks.on_stage)
    table, front_rows = table[: len(named)], table[len(named) :]
    refit = kept.record(assembly, front_rows.pop()) if kept else None
    losses = {
        "search": search_loss,
        "search_tokens": search_tokens,
        "validation": {row.name: row.losses for row in table},
    }
    spent = rounds_file.with_earlier(out, objective.spent)
    policy = make_policy(assembly, best, losses, table[-1].beside(table[0]), vars(spent), refit)
    policy.save(out / "policy.json")
    save_front(assembly, objective, front, table[0], front_rows, out)
    result = {
        "table": [row.record() for row in table],
        "front": [row.record() for row in front_rows],
        "spent": vars(spent),
        "history": objective.history,
        "interrupted": interrupted,
    }
    write_atomically(out / "result.json", to_json(result) + "\n")
    loss, history = table[-1].validation_loss, objective.history
    return SearchResult(
        policy, loss, history, out, table, front_rows, spent, interrupted,
        assembly.space, objective.incumbents, lambda: assembly,
    )  # fmt: skip
