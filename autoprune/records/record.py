"""The record of a search as an Optuna study, for optuna-dashboard, `optuna.visualization` and other programs.

A thread writes it from the journal, score by score. Resume replays the journal and not the study, and a slow or lost
database does not delay a search. Scores that a killed process had not written are written on resume.

A trial is one score, of a proposal on some sequences:

- parameters: the level of each unit, by the unit's name; of a mask, the groups kept of each unit (`<unit>.kept`);
- state: always pruned, because losses on different or few sequences are not comparable. At the end of a search, the
  candidates for the answer, which have been scored on about as many sequences as it, are added again as complete trials
  (user attribute `final`). So `study.best_trial` is the answer, or the best answer if runs share a study, and histories
  and importances compare like with like;
- value: mean loss over all sequences that the proposal has been scored on so far; then, for agents that trade loss
  against costs, those costs as shares of dense;
- intermediate values: the mean loss at every number of tokens so far (where the loss is the only value);
- constraints, met at 0 and below: for each budget the cost above it, as a share of dense (`budget.params`, ...);
- user attributes: `run`, `tokens`, `seconds`, the costs as shares of dense (`share.params`, ...), `mask` (hexadecimal),
  and `steps` where its network was trained before it was scored: its value is then of losses after as many steps.

A network that overflows, or that could not be scored (user attribute `failed`: why), is a failed trial. Study
attributes: `subject` (a hash of network, text, space and loss), `agent`, `budgets`, and at the end of a run
`answer.<run>`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from autoprune.errors import UserError
from autoprune.journal import Journal, Score
from autoprune.records.storage import FILE, explained, mend, open_storage, quiet, reason, release
from autoprune.records.trials import Trials, bits_of
from autoprune.space import Proposal, SearchSpace

FINALISTS = 100  # complete trials of a search, at most


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
        self._trials = Trials(space, journal.id, tokens_per_sequence, metrics)
        self._failed: Exception | None = None
        about = {"subject": journal.subject, "agent": agent, "budgets": dict(space.budgets)}
        try:
            if storage is None:
                mend(run / FILE)
            self._storage = open_storage(run, storage)
            self._study = _study(self._storage, storage, name, run, self._trials.values)
            _describe(self._study, about)
            # all that a run's own file holds is the run's, whatever has become of its journal's first line
            there = [t.user_attrs for t in self._study.get_trials(deepcopy=False)]
            own = [told for told in there if storage is None or told.get("run") == self._run]
            self._finalists = sum(bool(told.get("final")) for told in own)
            self._skip = len(own) - self._finalists
        except OSError as error:  # of the file, such as a full disk: the journal's own is what ends a search
            self._failed = error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="autoprune-record")

    def write(self) -> None:
        """Record the new scores of the journal, without waiting for it."""
        scores = self._journal.scores[self._queued :]
        self._queued += len(scores)
        self._submit(self._add, scores)

    def answer(self, proposal: Proposal, loss: float, tokens: int, finalists: Sequence[Proposal] = ()) -> None:
        """Store the run's answer in the study's attributes, and add the candidates for it as complete trials."""
        self.write()
        record = {"loss": loss, "tokens": tokens, **self._trials.params(proposal), **bits_of(proposal)}
        self._submit(lambda: self._study.set_user_attr(f"answer.{self._run}", record))
        self._submit(self._complete, finalists)

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

    def _complete(self, finalists: Sequence[Proposal]) -> None:
        for proposal in finalists[self._finalists :]:  # what an earlier end of the run has written is there
            self._study.add_trial(self._trials.finalist(proposal))


def finalists(archive: Sequence[tuple[Proposal, float, int]], answer: Proposal) -> list[Proposal]:
    """Of candidates (proposal, mean loss, sequences) those that an answer was chosen from, and it: the best, in order.

    They have been scored on at least half as many sequences, and lose more.
    """
    scored = {proposal: (loss, sequences) for proposal, loss, sequences in archive}
    least, enough = scored[answer][0], scored[answer][1] / 2
    rivals = [one for one, (loss, n) in scored.items() if one != answer and n >= enough and least < loss < math.inf]
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
