"""Runs the rounds of a run in its directory. A run that is killed at any moment goes on where it was.

Rounds before the last are runs of their own, `RUN/rounds/1/`, ...: a search and the fine-tuning of its policy. The
network that comes out is written to `start.safetensors` of the round behind it. The last round is the run itself.
`RUN/rounds.json` says which rounds have ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from autoprune import rundir, stopping, study
from autoprune.assembly import Assembly
from autoprune.callbacks import SILENT, Best, Callback
from autoprune.config import LIMITS, SearchConfig, load_config
from autoprune.errors import UserError
from autoprune.files.writing import own_folder
from autoprune.level import GROUPS
from autoprune.networks import starting
from autoprune.policy import Policy
from autoprune.provenance import proposal_of
from autoprune.records.storage import check_storage
from autoprune.recovery.finetuning import Recovered, finetune
from autoprune.result import SearchResult
from autoprune.result_file import load_result
from autoprune.rounds.plan import check_settings, config_of, plan_of
from autoprune.rounds_file import RoundDone, Rounds, RoundsPlan, read_rounds
from autoprune.run_state import RunState
from autoprune.spending import Limits, Spent
from autoprune.tracking.following import tracked

if TYPE_CHECKING:
    from autoprune.objective import Objective

FOLDER = "rounds"


def start(config: SearchConfig, out: Path | None = None, callbacks: Callback = SILENT) -> SearchResult:
    """Run a new search, of one round or of several. Arguments and what is raised are as in `study.start`.

    Raises:
        KeyboardInterrupt: a round before the last was stopped; `resume` goes on.
    """
    check_settings(config)
    if config.rounds == 1:
        return study.start(config, out, callbacks)
    config = study.limited(config)
    study.make_agent(config.agent, config.agent_settings())
    check_storage(config.storage)
    told = tracked(config.track, callbacks)
    out = out or rundir.new_run_path(config.agent, config.seed)
    rundir.create(out)
    with rundir.locked(out):
        try:
            config.save(out / "config.yaml")
            told.on_start(config, out)
            known = _begun(out, config, callbacks)
        except Exception:  # the user's own code raises what it likes
            rundir.discard(out)
            raise
        return _run(out, config, known, callbacks, told)


def resume(out: Path, callbacks: Callback = SILENT, places: Mapping[str, Any] | None = None) -> SearchResult:
    """Continue a run of one round or of several. Arguments are as in `study.resume`.

    Raises:
        UserError: as `study.resume`, or a limit of several rounds is to change.
        KeyboardInterrupt: as `start`.
    """
    rundir.check_is_run(out)
    given = dict(places or {})
    if load_config(out / "config.yaml").rounds == 1:
        return study.resume(out, callbacks, given)
    changed = [name for name in LIMITS if name in given]
    if changed:
        raise UserError(
            f"'{out}' is a run of several rounds, which share its limits: {changed[0]} cannot change. Start a new "
            "search with it."
        )
    config = load_config(out / "config.yaml", given)
    check_settings(config)
    told = tracked(config.track, callbacks)
    with rundir.locked(out):
        told.on_start(config, out)
        known = read_rounds(out) or _begun(out, config, callbacks)
        return _run(out, config, known, callbacks, told)


def _begun(out: Path, config: SearchConfig, callbacks: Callback) -> Rounds:
    """The plan of a run that begins, under its final budgets."""
    assembly = study.prepare(config.model_copy(update={"rounds": 1, "round_tokens": None}), callbacks, run=out)
    known = Rounds(plan=plan_of(config, assembly))
    known.save(out)
    return known


def _run(out: Path, config: SearchConfig, known: Rounds, callbacks: Callback, told: Callback) -> SearchResult:
    plan = known.plan
    for number in range(1, plan.rounds):
        run, last = out / FOLDER / str(number), number + 1 == plan.rounds
        target = (out if last else out / FOLDER / str(number + 1)) / starting.FILE
        if len(known.done) >= number and target.is_file():
            continue
        own_folder(out / FOLDER)
        own_folder(run)
        own_folder(target.parent)
        one = _round(run, config_of(config, plan, number), plan, target, _Told(callbacks, out, number, plan.rounds))
        known = known.with_done(one)
        known.save(out)
    callbacks.on_notice(f"round {plan.rounds} of {plan.rounds}")
    return study.search_in(out, config, told, Limits(*(plan.limits[name] for name in LIMITS)))


def _round(run: Path, config: SearchConfig, plan: RoundsPlan, target: Path, callbacks: "_Told") -> RoundDone:
    """One round before the last: search, train, and write the network for the next round."""
    shares = config.budgets
    callbacks.begin(shares)
    spent = _searched(run, config, callbacks)

    def hand_over(assembly: Assembly, policy: Policy, student: nn.Module) -> None:
        _write_start(assembly, policy, student, target)

    recovered = finetune(run, {"max_tokens": plan.round_tokens, "seed": config.seed}, callbacks, hand_over)
    return RoundDone(
        number=callbacks.number, shares=shares, search=spent, trained=_trained(recovered, plan),
        training=_charged(recovered, plan, config.sequence_length), dense=asdict(recovered.dense),
        found=asdict(recovered.before), recovered=asdict(recovered.after),
    )  # fmt: skip


def _searched(run: Path, config: SearchConfig, callbacks: "_Told") -> Spent:
    """What the search of a round has spent, which is begun or continued unless it has ended.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    if not (run / "config.yaml").is_file():
        result = study.start(config, run, callbacks)
    elif (run / "result.json").is_file() and not load_result(run).interrupted:
        return load_result(run).spent
    else:
        result = study.resume(run, callbacks)
    if result.interrupted:
        raise KeyboardInterrupt
    return result.spent


def _trained(recovered: Recovered, plan: RoundsPlan) -> int:
    """Tokens trained on; the count of a training is approximate, and its limit is not."""
    return 0 if recovered.training is None else min(recovered.training.tokens, plan.round_tokens)


def _charged(recovered: Recovered, plan: RoundsPlan, length: int) -> Spent:
    """What a training is charged as: forward passes, as the training of candidates is."""
    tokens = plan.charged * _trained(recovered, plan)
    seconds = 0.0 if recovered.training is None else recovered.training.seconds
    return Spent(evals=-(-tokens // length), tokens=tokens, seconds=seconds, training=tokens)


def _write_start(assembly: Assembly, policy: Policy, student: nn.Module, target: Path) -> None:
    """Write what the next round starts from.

    Raises:
        UserError: a level does more than remove groups, or the disk is full.
    """
    other = next((unit for unit in policy.units if unit.form != GROUPS), None)
    if other is not None:
        raise UserError(
            f"rounds are of levels that remove groups so far, and {other.name} has the level {other.as_level.name}: "
            "search in one round."
        )
    space, store = assembly.space, assembly.store
    kept = space.kept(proposal_of(assembly, policy))
    orders: list[Sequence[Tensor]] = [[order_G[:k].cpu() for order_G in store.orders(u)] for u, k in enumerate(kept)]
    left = {unit.name: k for unit, k in zip(space.units, kept, strict=True)}
    starting.save_start(target, assembly.view, student, orders, left)


class _Told(Callback):
    """Tells callbacks how a round goes. A request to stop the run stops the round.

    Args:
        callbacks: of the run, without its trackers.
        run: the directory of the run.
        number: of the round.
        total: number of rounds.
    """

    def __init__(self, callbacks: Callback, run: Path, number: int, total: int) -> None:
        self._callbacks, self._run, self.number, self._total = callbacks, run, number, total
        self._state = RunState(run)

    def begin(self, shares: Mapping[str, float]) -> None:
        """Say which round begins, and its budgets."""
        bounds = ", ".join(f"{metric}={share:.1%}" for metric, share in shares.items())
        self._callbacks.on_notice(f"round {self.number} of {self._total}, with the budget {bounds}")

    def on_stage(self, stage: str, share: float) -> None:
        """Forwarded with the round."""
        if stopping.heard(self._run):
            raise KeyboardInterrupt
        named = f"round {self.number} of {self._total}: {stage}"
        self._state.stage(named, share)
        self._callbacks.on_stage(named, share)

    def on_scores(self, objective: "Objective") -> None:
        """Forwarded."""
        self._state.stage(f"round {self.number} of {self._total}: searching", objective.progress)
        if stopping.heard(self._run):
            objective.stop()
        self._callbacks.on_scores(objective)

    def on_best(self, answer: Best) -> None:
        """Forwarded."""
        self._callbacks.on_best(answer)

    def on_step(self, step: int, measures: Mapping[str, float]) -> None:
        """Forwarded."""
        self._callbacks.on_step(step, measures)
