"""The objective, which agents call with policies to get losses. It stores scores, charges limits and writes the
journal.

A loss is identified by its policy, its sequence and the number of training steps that the policy's network had taken.
Asking for more tokens of a policy costs only the tokens that are new. Resume is replay: scores in the journal are
charged as before but are not computed again.

Shapes: P policies, S sequences, U units, L levels.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoprune.archive import Archive
from autoprune.clock import Clock
from autoprune.errors import LimitReached, UserError
from autoprune.fidelity import Training
from autoprune.incumbents import Answer, remember
from autoprune.journal import Journal
from autoprune.losses_of_policies import Losses
from autoprune.ports.scorer import Scorer
from autoprune.requests import check_sequences, checked_policies, checked_steps, plain
from autoprune.slope_requests import requested_slopes
from autoprune.space import Levels, Proposal, SearchSpace
from autoprune.spending import Account, Limits, Spent
from autoprune.unit_statistics import UnitStatistics

__all__ = ["IDLE", "Answer", "Limits", "Objective", "Spent"]

IDLE = 100
"""Calls in a row in which nothing is new, for each unit and a hundred times besides, that end a limited search. Agents
that look out for it end after 50 batches, of at most a call a unit and a dozen for a race."""


class Objective:
    """Scores policies for an agent.

    Every search with a limit ends. Calls for known scores spend nothing; they end the search when its time is over or
    after `IDLE` of them. Without limits only the agent ends the search.

    Args:
        space: the units, levels and budgets.
        scorer: computes losses.
        limits: when to raise `LimitReached`.
        journal: every new score is appended to it, and the scores in it are replayed.
        on_score: called after every batch, for progress displays.
        statistics: statistics of each unit, for agents that use them; empty where none are known.
        run: the run's directory; None outside of a run.

    Attributes:
        training: how networks of policies are trained for losses after training steps. An agent may choose it.
        history: (tokens spent, seconds, best search loss) after every batch.
        incumbents: every change of `best`, with the tokens spent until then.
        stopped: whether `stop` ended the search.
    """

    def __init__(
        self,
        space: SearchSpace,
        scorer: Scorer,
        limits: Limits,
        journal: Journal | None = None,
        on_score: Callable[["Objective"], None] | None = None,
        statistics: Sequence[UnitStatistics] = (),
        run: Path | None = None,
    ) -> None:
        self.space, self.statistics, self._account = space, tuple(statistics), Account(limits)
        self.history: list[tuple[int, float, float]] = []
        self.incumbents: list[Answer] = []
        self._scorer, self._journal = scorer, journal or Journal.in_memory()
        self._replay = self._journal.replay()
        self._clock = Clock(self._account, self._journal, self._replay)
        self._on_score = on_score or (lambda _: None)
        self.training = Training(scorer, self._tick)
        self._archive = Archive()
        self._losses = Losses(scorer, self.training, self._archive, self._account, self._replay, self._journal)
        self._dense: dict[int, float] = {}
        self._declared: Proposal | None = None
        self._idle = 0
        self.run, self.stopped, self._stopping = run, False, False

    # -- what agents use ---------------------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """Bounds on the search."""
        return self._account.limits

    @property
    def spent(self) -> Spent:
        """What the search has used so far."""
        return self._account.spent

    @property
    def computed(self) -> int:
        """Tokens that this process scored; replayed scores are not counted."""
        return self._losses.computed

    @property
    def n_sequences(self) -> int:
        """Sequences in the search split: the highest fidelity."""
        return self._scorer.n_sequences

    @property
    def tokens_per_sequence(self) -> int:
        """Tokens of one sequence: the smallest fidelity."""
        return self._scorer.tokens_per_sequence

    @property
    def tokens_left(self) -> float:
        """Tokens that may still be spent; infinite without a limit."""
        return self._account.tokens_left

    @property
    def progress(self) -> float:
        """Share of the tightest limit that is spent, in [0, 1]; 0 without limits. Time is left out."""
        return self._account.progress

    def __call__(self, policies: Sequence[Proposal], tokens: int | None = None, steps: int = 0) -> NDArray[np.float64]:
        """Mean losses on the first `tokens` tokens of the search split (all by default), `[P]`.

        Args:
            policies: what is scored.
            tokens: of the search split.
            steps: training steps that each policy's network takes before, as of `by_sequence`.

        Raises:
            LimitReached: the limits are spent. The part that fitted has been scored and recorded.
        """
        return np.asarray(self.by_sequence(policies, range(self.sequences_for(tokens)), steps=steps).mean(axis=1))

    def by_sequence(
        self, policies: Sequence[Proposal], sequences: Sequence[int], probe: bool = False, steps: int = 0
    ) -> NDArray[np.float64]:
        """Losses on chosen sequences, `[P, S]`, for paired comparisons and for an agent's own samples.

        Args:
            policies: what is scored.
            sequences: their numbers.
            probe: whether the policies are no candidates (sensitivities, partial policies). They may then break
                budgets.
            steps: training steps of each policy's network before it is scored. The trained weights are thrown away;
                the search returns the policy. Steps are charged once: more steps go on where the last ones ended.

        Raises:
            ValueError: a policy breaks a budget, a sequence does not exist, networks cannot be trained here, or
                `steps` is no whole number of at least 0.
        """
        steps = checked_steps(steps)
        if steps and not self.training.possible:
            raise ValueError(f"an agent asked for losses after {steps} training steps; nothing here can train")
        policies = checked_policies(policies, self.space, budgets_hold=not probe)
        check_sequences(sequences, self.n_sequences)
        self._end_if_stopped()
        before, at_once = self.spent.evals, 1 if steps else self._scorer.policies_at_once
        for start in range(0, len(policies), at_once):
            if steps:
                self.look_at_clock()
            self._score(policies[start : start + at_once], list(sequences), not probe, steps)
        self._idle = self._idle + 1 if self.spent.evals == before else 0
        if self._idle:
            self.look_at_clock()
            if self.limits != Limits() and self._idle >= IDLE * (100 + len(self.space.units)):
                raise LimitReached
        losses = [self._archive.losses(policy, sequences, steps) for policy in policies if sequences]
        return np.array(losses, dtype=np.float64).reshape(len(policies), len(sequences))

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """The losses of the dense network, `[S]`; 0 for a divergence from it. They are not charged or journalled."""
        new = [s for s in sequences if s not in self._dense]
        if new:
            losses_S = self._scorer.dense_losses(new)
            self._dense.update(zip(new, (float(loss) for loss in losses_S), strict=True))
        return np.array([self._dense[s] for s in sequences])

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64] | None:
        """Estimated change of the loss if one unit changes its level, for every unit and level, `[U, L]`; NaN is
        unknown.

        The forward passes that this takes are charged. Returns None if the scorer has no slopes.

        Raises:
            LimitReached: the limits have no room for it.
        """
        if not self.slope_passes:
            return None
        account, replay, journal = self._account, self._replay, self._journal
        slopes_UL, computed = requested_slopes(self._scorer, account, replay, journal, policy, sequences)
        self._losses.computed += computed
        return slopes_UL

    @property
    def slope_passes(self) -> int:
        """Forward passes that are charged for the slopes of one sequence; 0 if the scorer has no slopes."""
        return self._scorer.slope_passes

    @property
    def step_passes(self) -> int:
        """Forward passes that are charged for one training step of a policy; 0 if networks cannot be trained here."""
        return self.training.scorer.step_passes

    def look_at_clock(self) -> None:
        """End the search if its time is over, for agents that compute for long between two scores.

        The journal records where this ended a search, so that a replay ends at the same place. Calls for known scores
        look at the clock, too.

        Raises:
            LimitReached: time is over.
        """
        self._end_if_stopped()
        self._clock.look(self.computed > 0)

    def declare(self, policy: Proposal) -> None:
        """Declare the agent's present answer. Without one, `best` is the lowest loss at the highest fidelity.

        Fidelity is compared by training steps first and by the number of sequences second.

        Raises:
            ValueError: the policy breaks a budget or has not been scored.
        """
        policy = plain(policy)
        self.space.check(policy)
        if not self.space.feasible(policy):
            raise ValueError(f"an agent declared {policy}, which breaks a budget; use space.repair")
        if policy not in self._archive:
            raise ValueError(f"an agent declared {policy}, of which no loss is known; score it first")
        self._declared = policy
        self._note()

    def sequences_for(self, tokens: int | None) -> int:
        """The number of sequences in `tokens` tokens, at least one."""
        if tokens is None:
            return self.n_sequences
        return max(1, min(self.n_sequences, round(tokens / self.tokens_per_sequence)))

    # -- what callbacks use ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the search after the present batch, as soon as it has an answer. Any thread may call this.

        The search ends in order. Its run has a result, which is marked as interrupted, and it can be resumed.
        """
        self._stopping = True

    def _tick(self) -> None:
        """End the search within the training of a candidate, if it was stopped or its time is over."""
        self._end_if_stopped()
        self._clock.tick()

    def _end_if_stopped(self) -> None:
        if self._stopping and self.incumbents:
            self.stopped = True
            raise LimitReached

    # -- what the study uses -----------------------------------------------------------------------------------

    @property
    def best(self) -> Proposal:
        """The declared policy, or otherwise the candidate with the lowest mean loss at the highest fidelity.

        Raises:
            UserError: nothing has been scored, or everything scored was NaN.
        """
        best = self._answer()
        if best is None and not self.spent.evals:
            whole = self.n_sequences * self.tokens_per_sequence
            raise UserError(
                "the search ended before it scored one policy: raise its limits. The whole search split, on which a "
                f"policy is scored at most, has {whole:,} {self.space.words.items}."
            )
        if best is None:
            raise UserError(
                "the search scored no policy with a finite loss: raise its limits, or look at the model's losses."
            )
        return best

    def loss(self, policy: Proposal) -> tuple[float, int]:
        """Mean loss of a scored policy after its most training steps, and the number of tokens in that mean."""
        mean, sequences = self._archive.standing(policy)
        return mean, sequences * self.tokens_per_sequence

    def archive(self) -> list[tuple[Proposal, float, int]]:
        """All candidates with the answer's number of training steps: the proposal, its mean loss, its sequences."""
        answer = self._answer()
        return self._archive.candidates(0 if answer is None else self._archive.most_steps(answer))

    # -- scoring -----------------------------------------------------------------------------------------------

    def _score(self, policies: list[Proposal], sequences: list[int], candidate: bool, steps: int) -> None:
        asked = {policy: self._archive.ask(policy, sequences, steps) for policy in policies}
        todo = {policy: new for policy, new in asked.items() if new}
        spent = replace(self.spent)
        allowed = self._charge(todo, steps)
        try:
            self._losses.compute(allowed, steps)
        except LimitReached:  # time was over within a training
            self._account.take_back(spent)
            for policy in policies:
                self._archive.forget_unscored(policy, steps)
            raise
        for policy, new in asked.items():
            if candidate and sequences and (policy in allowed or not new):
                self._archive.nominate(policy, steps)
            else:
                self._archive.forget_unscored(policy, steps)
        self._note()
        if allowed:
            self.history.append((self.spent.tokens, self.spent.seconds, self._best_so_far()))
            self._on_score(self)
            self._end_if_stopped()
        if len(allowed) < len(todo):
            raise LimitReached

    def _charge(self, todo: dict[Proposal, list[int]], steps: int) -> dict[Proposal, list[int]]:
        """The part of the work that the limits allow, in order; it is counted as spent."""
        allowed: dict[Proposal, list[int]] = {}
        if self._account.is_late:
            return allowed
        for policy, new in todo.items():
            passes, length = self.training.passes(self._archive, policy, steps), self.tokens_per_sequence
            if not self._account.charge(1 + passes, (passes + len(new)) * length, passes * length):
                break
            allowed[policy] = new
        return allowed

    def _answer(self) -> Proposal | None:
        return self._archive.leader() if self._declared is None else self._declared

    def _note(self) -> None:
        """Remember the present answer. There is none while nothing but sensitivities has been scored."""
        best = self._answer()
        if best is not None:
            remember(self.incumbents, Answer(self.spent.tokens, self.spent.seconds, best))

    def _best_so_far(self) -> float:
        return self._archive.standing(self.incumbents[-1].proposal)[0] if self.incumbents else np.inf
