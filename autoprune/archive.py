"""The scores of a search and its best candidate so far. The cost of a score does not grow with their number."""

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.space import Proposal

Key = tuple[Proposal, int]
"""A policy, and the training steps that its network had taken before it was scored."""


@dataclass
class _Record:
    number: int  # records are numbered in the order that they were asked for: of equals the first leads
    losses: dict[int, float] = field(default_factory=dict)
    mean: float = math.nan
    candidate: bool = False


class Archive:
    """Losses of policies by training steps and sequence.

    The leading candidate has the lowest mean loss at the highest fidelity. Fidelity is compared by training steps first
    and by the number of sequences second. Losses after different numbers of steps are never averaged.

    Standings are kept in a heap. A new score adds a standing and leaves the policy's earlier one in the heap, where it
    is skipped when it comes to the top.
    """

    def __init__(self) -> None:
        self._records: dict[Key, _Record] = {}
        self._most_steps: dict[Proposal, int] = {}  # of policies of which a loss is known
        self._taken: dict[Proposal, set[int]] = {}  # likewise, all numbers of steps but 0
        self._numbered = 0
        self._standings: list[tuple[int, int, float, int, Proposal]] = []

    def __contains__(self, policy: Proposal) -> bool:
        """Whether a loss of a policy is known."""
        return policy in self._most_steps

    def steps_up_to(self, policy: Proposal, steps: int) -> int:
        """The most training steps, up to `steps`, after which a loss of a policy is known; they have been charged."""
        return max((taken for taken in self._taken.get(policy, ()) if taken <= steps), default=0)

    def ask(self, policy: Proposal, sequences: Iterable[int], steps: int = 0) -> list[int]:
        """The given sequences on which the policy has no loss yet. The policy is remembered as asked for."""
        if (policy, steps) not in self._records:
            self._records[policy, steps] = _Record(self._numbered)
            self._numbered += 1
        known = self._records[policy, steps].losses
        return [s for s in sequences if s not in known]

    def add(self, policy: Proposal, sequences: Sequence[int], losses: Sequence[float], steps: int = 0) -> None:
        """Add new losses of a policy that was asked for."""
        record = self._records[policy, steps]
        record.losses.update(zip(sequences, losses, strict=True))
        record.mean = float(np.mean(list(record.losses.values())))
        if record.losses:
            self._most_steps[policy] = max(steps, self._most_steps.get(policy, 0))
            if steps:
                self._taken.setdefault(policy, set()).add(steps)
        if record.candidate:
            self._stand(policy, steps, record)

    def nominate(self, policy: Proposal, steps: int = 0) -> None:
        """Make a policy a candidate."""
        record = self._records[policy, steps]
        if not record.candidate:
            record.candidate = True
            self._stand(policy, steps, record)

    def forget_unscored(self, policy: Proposal, steps: int = 0) -> None:
        """Forget that a policy was asked for, if no loss came of it."""
        if (policy, steps) in self._records and not self._records[policy, steps].losses:
            del self._records[policy, steps]

    def losses(self, policy: Proposal, sequences: Iterable[int], steps: int = 0) -> list[float]:
        """The policy's loss on each of the given sequences."""
        known = self._records[policy, steps].losses
        return [known[s] for s in sequences]

    def most_steps(self, policy: Proposal) -> int:
        """The most training steps after which a finite loss of a policy is known; where none is finite, the most."""
        most = self._most_steps[policy]
        taken = sorted({0, *self._taken.get(policy, ())}, reverse=True) if most else []
        known = (steps for steps in taken if (policy, steps) in self._records)
        return next((steps for steps in known if math.isfinite(self._records[policy, steps].mean)), most)

    def standing(self, policy: Proposal) -> tuple[float, int]:
        """Mean loss of the policy after its most training steps, and the number of sequences in that mean.

        A training that diverged does not count if a loss after fewer steps is finite.
        """
        record = self._records[policy, self.most_steps(policy)]
        return record.mean, len(record.losses)

    def leader(self) -> Proposal | None:
        """The candidate that leads; None where no candidate has a finite loss."""
        while self._standings:
            steps, count, _, _, policy = self._standings[0]
            record = self._records[policy, -steps]
            if len(record.losses) == -count and math.isfinite(record.mean):
                return policy
            heapq.heappop(self._standings)
        return None

    def candidates(self, steps: int = 0) -> list[tuple[Proposal, float, int]]:
        """Candidates after so many training steps, in the order of asking: the policy, mean loss, sequences."""
        return [
            (policy, record.mean, len(record.losses))
            for (policy, taken), record in self._records.items()
            if taken == steps and record.candidate
        ]

    def _stand(self, policy: Proposal, steps: int, record: _Record) -> None:
        heapq.heappush(self._standings, (-steps, -len(record.losses), record.mean, record.number, policy))
