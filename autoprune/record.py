"""The record of a search as an Optuna study: what optuna-dashboard, `optuna.visualization` and other programs read.

It is written from the journal, score by score, by a thread of its own: the journal stays what resume replays, and a
slow or lost database holds up no search. What a killed process had not written is written on resume.

A trial is one score, of a proposal on some sequences:

- parameters: the level of each unit, by the unit's name; of a mask, the groups kept of each unit (`<unit>.kept`);
- value: mean loss over all sequences that the proposal has been scored on so far; then, for agents that trade loss
  against costs, those costs as shares of dense;
- intermediate values: the mean loss at every number of tokens so far (where the loss is the only value);
- constraints, met at 0 and below: for each budget the cost above it, as a share of dense; and `tokens`: half of the
  most that any proposal within the budgets had been scored on by then, less its own. So `study.best_trial` is none that
  was lucky on few tokens;
- user attributes: `run`, `tokens`, `seconds`, the costs as shares of dense (`share.params`, ...), `mask` (hexadecimal).

A network that overflows is a failed trial. Study attributes: `subject` (a hash of network, text, space and loss),
`agent`, `budgets`, and at the end of a run `answer.<run>`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.config import without_password
from autoprune.errors import UserError
from autoprune.journal import Journal, Score
from autoprune.mask import Mask
from autoprune.space import Proposal, SearchSpace

FILE = "study.log"


class Record:
    """One run's part of an Optuna study.

    Args:
        run: the run's directory.
        journal: what is recorded.
        space: units, costs and budgets.
        tokens_per_sequence: of the search split.
        storage: an Optuna URL; None is a journal file in the run's directory.
        name: of the study; None is the directory's name. Runs of one name in one storage share a study.
        agent: for the study's attributes.
        metrics: costs that are values beside the loss.

    Raises:
        UserError: the storage cannot be opened, or holds a study of that name about something else.
    """

    def __init__(
        self,
        run: Path,
        journal: Journal,
        space: SearchSpace,
        tokens_per_sequence: int,
        storage: str | None = None,
        name: str | None = None,
        agent: str = "",
        metrics: Sequence[str] = (),
    ) -> None:
        self._journal, self._space, self._tokens = journal, space, tokens_per_sequence
        self._metrics, self._run = tuple(metrics), journal.id
        self._losses: dict[Proposal, dict[int, float]] = defaultdict(dict)
        self._steps: dict[Proposal, dict[int, float]] = defaultdict(dict)
        self._most, self._queued, self._written = 0, 0, 0
        self._failed: BaseException | None = None
        self._distributions = _distributions(space)
        self._dense = {metric: space.cost(space.dense, metric) or 1.0 for metric in space.costs}
        self._study = _study(run, storage, name or run.name, ("loss", *self._metrics))
        self._describe(journal.subject, agent)
        own = (t for t in self._study.get_trials(deepcopy=False) if t.user_attrs.get("run") == self._run)
        self._there = sum(1 for _ in own)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="autoprune-record")

    def write(self) -> None:
        """Record what the journal has gained since, without waiting for it."""
        scores = self._journal.scores[self._queued :]
        self._queued += len(scores)
        self._submit(self._add, scores)

    def answer(self, proposal: Proposal, loss: float, tokens: int) -> None:
        """Name the run's answer in the study's attributes."""
        record = {"loss": loss, "tokens": tokens, **_named(self._space, proposal), **_mask(proposal)}
        self._submit(lambda: self._study.set_user_attr(f"answer.{self._run}", record))

    def close(self) -> str | None:
        """Wait until everything is written; what went wrong, if anything did, in a sentence."""
        self._thread.shutdown(wait=True)
        if self._failed is None:
            return None
        return (
            f"the Optuna study could not be written ({_first_line(self._failed)}). The run's journal has everything: "
            "`autoprune resume` writes what is missing."
        )

    # -- in the thread -------------------------------------------------------------------------------------------

    def _submit(self, work: Any, *args: Any) -> None:
        def guarded() -> None:
            if self._failed is None:
                try:
                    work(*args)
                except Exception as error:
                    self._failed = error

        self._thread.submit(guarded)

    def _add(self, scores: Sequence[Score]) -> None:
        for score in scores:
            trial = self._trial(score)
            self._written += 1
            if self._written > self._there:
                self._study.add_trial(trial)

    def _trial(self, score: Score) -> FrozenTrial:
        proposal, space = score.proposal, self._space
        known = self._losses[proposal]
        known.update(zip(score.sequences, score.losses, strict=True))
        loss, tokens = float(np.mean(list(known.values()))), len(known) * self._tokens
        finite = bool(np.isfinite(loss))
        steps = self._steps[proposal]
        if finite:
            steps[tokens] = loss
        shares = {metric: space.cost(proposal, metric) / dense for metric, dense in self._dense.items()}
        over = {metric: shares[metric] - bound / self._dense[metric] for metric, bound in space.budgets.items()}
        if space.feasible(proposal):
            self._most = max(self._most, tokens)
            over = {metric: min(above, 0.0) for metric, above in over.items()}  # what rounding left
        names = _named(space, proposal)
        return create_trial(
            state=TrialState.COMPLETE if finite else TrialState.FAIL,
            values=[loss, *(shares[metric] for metric in self._metrics)] if finite else None,
            params=names,
            distributions={name: self._distributions[name] for name in names},
            constraints=over | {"tokens": self._most / 2 - tokens},
            user_attrs={
                "run": self._run,
                "tokens": tokens,
                "seconds": score.seconds,
                **{f"share.{metric}": share for metric, share in shares.items()},
                **_mask(proposal),
            },
            intermediate_values=dict(steps) if finite and not self._metrics else None,
        )

    def _describe(self, subject: str, agent: str) -> None:
        there = self._study.user_attrs
        if there.get("subject", subject) != subject:
            raise UserError(
                f"the study '{self._study.study_name}' is about another network, text, space or loss "
                f"({there['subject']}) than this run ({subject}): choose another --study-name."
            )
        for key, value in {"subject": subject, "agent": agent, "budgets": dict(self._space.budgets)}.items():
            if key not in there:
                self._study.set_user_attr(key, value)


def open_storage(run: Path, storage: str | None) -> BaseStorage | str:
    """The storage of a run's study, as Optuna takes it."""
    if storage is not None:
        return storage
    return JournalStorage(JournalFileBackend(str(run / FILE)))


def check_storage(storage: str | None) -> None:
    """Raise a UserError unless the storage can be opened."""
    if storage is not None:
        with _explained(f"'{without_password(storage)}'"):
            optuna.storages.get_storage(storage)


def _study(run: Path, storage: str | None, name: str, values: Sequence[str]) -> optuna.Study:
    if storage is None:
        _mend(run / FILE)
    with _explained(f"'{without_password(storage)}'" if storage else f"'{run / FILE}'"):
        with _quiet():
            study = optuna.create_study(
                storage=open_storage(run, storage), study_name=name, directions=["minimize"] * len(values),
                load_if_exists=True,
            )  # fmt: skip
        if len(study.directions) == len(values):
            study.set_metric_names(list(values))
    if len(study.directions) != len(values):
        raise UserError(
            f"the study '{name}' has {len(study.directions)} values a trial, and this agent's have {len(values)} "
            f"({', '.join(values)}): choose another --study-name."
        )
    return study


def _mend(path: Path) -> None:
    """Drop a last line that a killed process left torn, and its lock: the run is ours alone."""
    for lock in path.parent.glob(path.name + ".lock*"):
        lock.unlink(missing_ok=True)
    if path.exists():
        raw = path.read_bytes()
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):
            with path.open("r+b") as file:
                file.truncate(whole)


def _distributions(space: SearchSpace) -> Mapping[str, BaseDistribution]:
    levels = {unit.name: IntDistribution(0, len(unit.kept) - 1) for unit in space.units}
    return levels | {f"{unit.name}.kept": IntDistribution(0, unit.groups) for unit in space.units}


def _named(space: SearchSpace, proposal: Proposal) -> dict[str, int]:
    """Parameters of a proposal."""
    if isinstance(proposal, Mask):
        return {f"{unit.name}.kept": kept for unit, kept in zip(space.units, space.kept(proposal), strict=True)}
    return {unit.name: level for unit, level in zip(space.units, proposal, strict=True)}


def _mask(proposal: Proposal) -> dict[str, str]:
    return {"mask": proposal.bits.hex()} if isinstance(proposal, Mask) else {}


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn whatever a database's driver raises into one sentence."""
    try:
        yield
    except Exception as error:
        raise UserError(f"the Optuna storage {where} cannot be used ({_first_line(error)}).") from error


@contextmanager
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
