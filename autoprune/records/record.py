"""The record of a search as an Optuna study, for optuna-dashboard, `optuna.visualization` and other programs.

A thread writes it from the journal, score by score. Resume replays the journal and not the study, and a slow or lost
database does not delay a search. Scores that a killed process had not written are written on resume.

A trial is one score, of a proposal on some sequences:

- parameters: the level of each unit, by the unit's name; of a mask, the groups kept of each unit (`<unit>.kept`);
- state and value: a score is a pruned trial without a value, because losses on different or few sequences are not
  comparable. When a search ends, its answer, and the candidates that have been scored on the whole sample of the answer
  and lose more, are added as complete trials (user attribute `final`). Their value is the mean loss on that sample;
  then, for agents that trade loss against costs, those costs as shares of dense. So `study.best_trial` is the answer,
  or the best answer if runs share a study, and a dashboard's best is the run's;
- intermediate values: the mean loss at every number of tokens so far (where the loss is the only value);
- constraints, met at 0 and below: for each budget the cost above it, as a share of dense (`budget.params`, ...);
- user attributes: `run`, `loss`, `tokens`, `seconds`, the costs as shares of dense (`share.params`, ...), `mask`
  (hexadecimal), and `steps` where its network was trained before it was scored: its loss is then after as many steps.

A finished trial cannot be changed. Where a run that has ended goes on (after Ctrl-C, or with other limits) and has
other finalists at its next end, its study is written again from the journal. If other runs share the study, the new
finalists are added to the earlier ones.

A network that overflows, or that could not be scored (user attribute `failed`: why), is a failed trial. Study
attributes: `subject` (a hash of network, text, space and loss), `agent`, `budgets`, and at the end of a run
`answer.<run>`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from autoprune.errors import UserError
from autoprune.journal import Journal, Score
from autoprune.records.storage import FILE, explained, mend, open_storage, quiet, reason, release
from autoprune.records.trials import Trials, bits_of
from autoprune.space import Proposal, SearchSpace

FINALISTS = 100  # complete trials of a search, at most
Finalist = tuple[Proposal, float, int]
"""A candidate for the answer, its mean loss, and the number of tokens in that mean."""


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
        self._journal, self._run, self._queued = journal, journal.id, 0
        self._new_trials = partial(Trials, space, journal.id, tokens_per_sequence, metrics)
        self._trials = self._new_trials()
        self._failed: Exception | None = None
        self._url, self._about = storage, {"subject": journal.subject, "agent": agent, "budgets": dict(space.budgets)}
        try:
            if storage is None:
                mend(run / FILE)
            self._storage = open_storage(run, storage)
            self._study = _study(self._storage, storage, name, run, self._trials.values)
            _describe(self._study, self._about)
            there = [trial.user_attrs for trial in self._own_trials()]
            self._skip = sum(not told.get("final") for told in there)
        except OSError as error:  # of the file, such as a full disk: the journal's own is what ends a search
            self._failed = error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="autoprune-record")

    def write(self) -> None:
        """Record the new scores of the journal, without waiting for it."""
        scores = self._journal.scores[self._queued :]
        self._queued += len(scores)
        self._submit(self._add, scores)

    def answer(self, proposal: Proposal, loss: float, tokens: int, finalists: Sequence[Finalist] = ()) -> None:
        """Store the run's answer in the study's attributes, and have its finalists as complete trials."""
        self.write()
        record = {"loss": loss, "tokens": tokens, **self._trials.params(proposal), **bits_of(proposal)}
        self._submit(self._complete, finalists)
        self._submit(lambda: self._study.set_user_attr(f"answer.{self._run}", record))

    def close(self) -> str | None:
        """Wait until everything is written. Returns a sentence about what went wrong, if anything did."""
        self.write()
        self._thread.shutdown(wait=True)
        if self._failed is None:
            release(self._storage)
            return None
        return (
            f"the Optuna study could not be written ({reason(self._failed)}). The run's journal has everything: "
            "`autoprune resume` writes what is missing."
        )

    def _submit(self, work: Callable[..., None], *args: Any) -> None:
        def guarded() -> None:
            if self._failed is None:
                try:
                    work(*args)
                except Exception as error:
                    self._failed = error

        self._thread.submit(guarded)

    def _add(self, scores: Sequence[Score]) -> None:
        for score in scores:
            trial = self._trials.trial(score)
            if self._skip:
                self._skip -= 1
            else:
                self._study.add_trial(trial)

    def _complete(self, finalists: Sequence[Finalist]) -> None:
        wanted = [self._trials.finalist(*one) for one in finalists]
        there = [_identity(trial) for trial in self._own_trials() if trial.user_attrs.get("final")]
        if finalists and there != [_identity(trial) for trial in wanted[: len(there)]] and self._is_alone():
            self._write_again()
            there = []
        for trial in wanted:
            if _identity(trial) not in there:
                self._study.add_trial(trial)

    def _write_again(self) -> None:
        """Replace the study by one without finalists."""
        name, values = self._study.study_name, self._trials.values
        with quiet():
            optuna.delete_study(study_name=name, storage=self._storage)
        self._study = _study(self._storage, self._url, name, Path(), values)
        _describe(self._study, self._about)
        self._trials, self._skip = self._new_trials(), 0
        self._add(self._journal.scores)

    def _own_trials(self) -> list[FrozenTrial]:
        """This run's trials: all that its own file holds, whatever has become of its journal's first line."""
        there = self._study.get_trials(deepcopy=False)
        return [trial for trial in there if self._url is None or trial.user_attrs.get("run") == self._run]

    def _is_alone(self) -> bool:
        return len(self._own_trials()) == len(self._study.get_trials(deepcopy=False))


def _identity(trial: FrozenTrial) -> tuple[object, ...]:
    """What tells complete trials apart."""
    return trial.params, trial.user_attrs.get("mask"), trial.user_attrs["tokens"], trial.values


def finalists(archive: Sequence[tuple[Proposal, float, int]], answer: Proposal) -> list[Proposal]:
    """Of candidates (proposal, mean loss, sequences) those that an answer was chosen from, and it: the best, in order.

    They have been scored on the whole sample of the answer, and lose more.
    """
    scored = {proposal: (loss, sequences) for proposal, loss, sequences in archive}
    least, whole = scored[answer]
    rivals = [one for one, (loss, n) in scored.items() if one != answer and n >= whole and least < loss < math.inf]
    return [answer, *sorted(rivals, key=lambda one: scored[one][0])[: FINALISTS - 1]]


def _study(storage: BaseStorage, url: str | None, name: str | None, run: Path, values: Sequence[str]) -> optuna.Study:
    """The study, made if need be; in a run's own file it keeps its name if the directory is renamed."""
    with explained(url), quiet():
        there = optuna.get_all_study_names(storage) if url is None and name is None else []
        name = name or (there[0] if there else run.name)
        directions = [StudyDirection.MINIMIZE] * len(values)
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        if len(study.directions) == len(values):
            study.set_metric_names(list(values))
            return study
    raise UserError(
        f"the study '{name}' has {len(study.directions)} values a trial, and this agent's have {len(values)} "
        f"({', '.join(values)}): choose another --study-name."
    )


def _describe(study: optuna.Study, about: Mapping[str, Any]) -> None:
    """Say what a study is about.

    Raises:
        UserError: it is about something else.
    """
    there = study.user_attrs
    if there.get("subject", about["subject"]) != about["subject"]:
        raise UserError(
            f"the study '{study.study_name}' is about another network, text, space or loss ({there['subject']}) than "
            f"this run ({about['subject']}): choose another --study-name."
        )
    for key in about.keys() - there.keys():
        study.set_user_attr(key, about[key])
