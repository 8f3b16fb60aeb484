"""The objective: what an agent calls. Policies in, losses out; it remembers, counts, records and ends the search.

Losses are kept for each policy and sequence, so that fidelities share samples: asking for more tokens of a policy
costs only the tokens that are new. Resume is replay: scores found in the journal are charged as they were, but not
computed again.

Shapes: P policies, S sequences.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import LimitReached, UserError
from autoprune.journal import Estimate, Journal, Score
from autoprune.mask import Mask
from autoprune.space import Levels, Proposal, SearchSpace
from autoprune.statistics import UnitStatistics

POLICIES_AT_ONCE = 16  # scored and journalled together, unless the scorer asks for more


class Scorer(Protocol):
    """What turns policies into losses: the evaluator, a farm of them, or a toy.

    One that is busy only with more policies than POLICIES_AT_ONCE says so in `policies_at_once`; one that could not
    score some, whose losses are then infinite, says why in `failures`, by policy. One that can tell from derivatives
    what other levels would do has `slopes(policy, sequences)` (`Objective.slopes`), and says in `slope_passes` how many
    forward passes over a sequence that takes.
    """

    @property
    def n_sequences(self) -> int:
        """Sequences in the search split."""
        ...

    @property
    def tokens_per_sequence(self) -> int:
        """Their length."""
        ...

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """Losses, `[P, S]`."""
        ...

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """Losses of the dense network, `[S]`."""
        ...


@dataclass(frozen=True)
class Limits:
    """Bounds on a search; None is unbounded. Tokens count policies x tokens, whatever prefixes are shared."""

    evals: int | None = None
    tokens: int | None = None
    seconds: float | None = None


@dataclass
class Spent:
    """What a search has used. An evaluation is a policy scored on at least one new sequence."""

    evals: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Answer(NamedTuple):
    """What a search would have answered from here on."""

    tokens: int
    seconds: float
    proposal: Proposal


@dataclass
class _Record:
    losses: dict[int, float] = field(default_factory=dict)
    candidate: bool = False

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.losses.values())))


class Objective:
    """Scores policies for an agent.

    Args:
        space: the units, levels and budgets.
        scorer: computes losses.
        limits: when to raise `LimitReached`.
        journal: every score is appended to it; what it holds already is replayed.
        on_score: called after every batch, for progress displays.
        statistics: of each unit, for agents that look at layers; empty where nothing is known.

    Attributes:
        history: (tokens spent, seconds, best search loss) after every batch.
        incumbents: every change of what `best` is, at the tokens that it was found with.
    """

    def __init__(
        self,
        space: SearchSpace,
        scorer: Scorer,
        limits: Limits,
        journal: Journal | None = None,
        on_score: Callable[["Objective"], None] | None = None,
        statistics: Sequence[UnitStatistics] = (),
    ) -> None:
        self.space, self.limits, self.spent, self.statistics = space, limits, Spent(), tuple(statistics)
        self.history: list[tuple[int, float, float]] = []
        self.incumbents: list[Answer] = []
        self._scorer, self._journal = scorer, journal or Journal.in_memory()
        self._on_score = on_score or (lambda _: None)
        self._records: dict[Proposal, _Record] = {}
        self._dense: dict[int, float] = {}
        self._replay = self._journal.replay()
        self._declared: Proposal | None = None
        self._started = time.monotonic()
        self._seconds_before = 0.0

    # -- what agents use ---------------------------------------------------------------------------------------

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
        return np.inf if self.limits.tokens is None else self.limits.tokens - self.spent.tokens

    @property
    def progress(self) -> float:
        """Share of the tightest limit that is spent, in [0, 1]; 0 without limits. Time cannot be replayed: left out."""
        limits, spent = self.limits, self.spent
        shares = [
            spent.evals / limits.evals if limits.evals else 0.0,
            spent.tokens / limits.tokens if limits.tokens else 0.0,
        ]
        return min(1.0, max(shares))

    def __call__(self, policies: Sequence[Proposal], tokens: int | None = None) -> NDArray[np.float64]:
        """Mean losses on the first `tokens` tokens of the search split (all by default), `[P]`.

        Raises:
            LimitReached: the limits are spent; what fitted has been scored and recorded.
        """
        return np.asarray(self.by_sequence(policies, range(self.sequences_for(tokens))).mean(axis=1))

    def by_sequence(
        self, policies: Sequence[Proposal], sequences: Sequence[int], probe: bool = False
    ) -> NDArray[np.float64]:
        """Losses on chosen sequences, `[P, S]`, for paired comparisons and for sub-samples of an agent's own.

        Args:
            probe: the policies are not candidates (sensitivities, partial policies) and may break budgets.
        """
        policies = [policy if isinstance(policy, Mask) else tuple(map(int, policy)) for policy in policies]
        for policy in policies:
            self.space.check(policy)
            if not probe and not self.space.feasible(policy):
                raise ValueError(f"an agent proposed {policy}, which breaks a budget; use space.repair")
        at_once = getattr(self._scorer, "policies_at_once", POLICIES_AT_ONCE)
        for start in range(0, len(policies), at_once):
            self._score(policies[start : start + at_once], list(sequences), candidate=not probe)
        return np.array([[self._records[p].losses[s] for s in sequences] for p in policies])

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """The dense network's own losses, `[S]`: 0 for a divergence from it. A yardstick, not charged or journalled."""
        new = [s for s in sequences if s not in self._dense]
        if new:
            losses_S = self._scorer.dense_losses(new)
            self._dense.update(zip(new, (float(loss) for loss in losses_S), strict=True))
        return np.array([self._dense[s] for s in sequences])

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64] | None:
        """Estimated change of the loss at other levels of each unit, the others as they are, `[U, L]`; NaN: unknown.

        Charged as the forward passes that it takes. None where the scorer cannot tell.

        Raises:
            LimitReached: the limits do not allow it.
        """
        if not self.slope_passes:
            return None
        passes = self.slope_passes * len(sequences)
        limits, spent = self.limits, self.spent
        if limits.evals is not None and spent.evals + passes > limits.evals:
            raise LimitReached
        if self.tokens_left < passes * self.tokens_per_sequence:
            raise LimitReached
        replayed = self._replay.take_estimate(policy, sequences)
        if replayed is not None:
            slopes_UL = np.array(replayed.slopes)
            self._went_on(replayed.seconds)
        else:
            scorer: Any = self._scorer
            found_UL = scorer.slopes(policy, sequences)
            if found_UL is None:
                return None
            slopes_UL = np.asarray(found_UL)
            self.spent.seconds = self._seconds_before + time.monotonic() - self._started
            self._journal.append_estimate(Estimate(policy, tuple(sequences), slopes_UL.tolist(), self.spent.seconds))
        spent.evals += passes
        spent.tokens += passes * self.tokens_per_sequence
        return slopes_UL

    @property
    def slope_passes(self) -> int:
        """Forward passes that the slopes of a sequence are charged as; 0 where there are none."""
        return int(getattr(self._scorer, "slope_passes", 0))

    def declare(self, policy: Proposal) -> None:
        """Name the agent's present answer. Without it, `best` is the lowest loss at the highest fidelity."""
        self._declared = policy
        self._note()

    def sequences_for(self, tokens: int | None) -> int:
        """How many sequences make up `tokens`, at least one."""
        if tokens is None:
            return self.n_sequences
        return max(1, min(self.n_sequences, round(tokens / self.tokens_per_sequence)))

    # -- what the study uses -----------------------------------------------------------------------------------

    @property
    def best(self) -> Proposal:
        """The declared policy, or else the lowest mean loss among candidates scored on the most sequences.

        Raises:
            UserError: nothing has been scored, or everything scored was NaN.
        """
        if self._declared is not None:
            return self._declared
        scored = [
            (len(r.losses), -mean, p) for p, r in self._records.items() if r.candidate and math.isfinite(mean := r.mean)
        ]
        if not scored:
            raise UserError(
                "the search scored no policy with a finite loss: raise its limits, or look at the model's losses."
            )
        return max(scored, key=lambda one: one[:2])[2]

    def loss(self, policy: Proposal) -> tuple[float, int]:
        """Mean loss of a scored policy, and the tokens behind it."""
        record = self._records[policy]
        return record.mean, len(record.losses) * self.tokens_per_sequence

    def archive(self) -> list[tuple[Proposal, float, int]]:
        """Every candidate scored: the proposal, mean loss, sequences."""
        return [(p, r.mean, len(r.losses)) for p, r in self._records.items() if r.candidate]

    # -- scoring -----------------------------------------------------------------------------------------------

    def _score(self, policies: list[Proposal], sequences: list[int], candidate: bool) -> None:
        todo: dict[Proposal, list[int]] = {}
        for policy in policies:
            known = self._records.setdefault(policy, _Record()).losses
            new = [s for s in sequences if s not in known]
            if new and policy not in todo:
                todo[policy] = new
        allowed = self._charge(todo)
        self._compute(allowed)
        for policy in dict.fromkeys(policies):
            record = self._records[policy]
            record.candidate |= candidate and all(s in record.losses for s in sequences)
            if not record.losses:
                del self._records[policy]
        self._note()
        if allowed:
            self.history.append((self.spent.tokens, self.spent.seconds, self._best_so_far()))
            self._on_score(self)
        if len(allowed) < len(todo):
            raise LimitReached

    def _charge(self, todo: dict[Proposal, list[int]]) -> dict[Proposal, list[int]]:
        """The part of the work that the limits allow, in order; it is counted as spent."""
        allowed: dict[Proposal, list[int]] = {}
        limits, spent = self.limits, self.spent
        if limits.seconds is not None and spent.seconds >= limits.seconds:
            return allowed
        for policy, new in todo.items():
            tokens = len(new) * self.tokens_per_sequence
            if limits.evals is not None and spent.evals + 1 > limits.evals:
                break
            if limits.tokens is not None and spent.tokens + tokens > limits.tokens:
                break
            spent.evals += 1
            spent.tokens += tokens
            allowed[policy] = new
        return allowed

    def _compute(self, todo: dict[Proposal, list[int]]) -> None:
        """Fill in losses: from the replay where it has them, otherwise by the scorer, journalled at once."""
        fresh: dict[tuple[int, ...], list[Proposal]] = {}
        for policy, new in todo.items():
            replayed = self._replay.take(policy, new)
            if replayed is None:
                fresh.setdefault(tuple(new), []).append(policy)
                continue
            self._records[policy].losses.update(zip(new, replayed.losses, strict=True))
            self._went_on(replayed.seconds)
        for sequences, policies in fresh.items():
            losses_PS = self._scorer.score(policies, sequences)
            losses_PS = np.where(np.isfinite(losses_PS), losses_PS, np.inf)
            self.spent.seconds = self._seconds_before + time.monotonic() - self._started
            failures: Mapping[Proposal, str] = getattr(self._scorer, "failures", {})
            scores = [
                Score(p, sequences, row.tolist(), self.spent.seconds, failures.get(p))
                for p, row in zip(policies, losses_PS, strict=True)
            ]
            self._journal.append(scores)
            for score in scores:
                self._records[score.proposal].losses.update(zip(sequences, score.losses, strict=True))

    def _went_on(self, seconds: float) -> None:
        """The clock of an earlier life."""
        self.spent.seconds = self._seconds_before = seconds
        self._started = time.monotonic()

    def _note(self) -> None:
        """Remember the present answer, if there is one and it is new."""
        with suppress(UserError):  # nothing but sensitivities has been scored
            best, known = self.best, self.incumbents
            if known and known[-1].tokens == self.spent.tokens:
                known.pop()
            if not known or known[-1].proposal != best:
                known.append(Answer(self.spent.tokens, self.spent.seconds, best))

    def _best_so_far(self) -> float:
        return self._records[self.incumbents[-1].proposal].mean if self.incumbents else np.inf
