"""What a search knows of its policies, and which candidate leads: a score costs the same however many there are."""

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.space import Proposal


@dataclass
class _Record:
    number: int  # records are numbered in the order that they were asked for: of equals the first leads
    losses: dict[int, float] = field(default_factory=dict)
    mean: float = math.nan
    candidate: bool = False


class Archive:
    """Losses of policies by sequence. Of the candidates, the one with the lowest mean on the most sequences leads.

    Standings wait in a heap. A new score adds one and leaves the policy's earlier one in there, which is passed over
    when it comes to the top.
    """

    def __init__(self) -> None:
        self._records: dict[Proposal, _Record] = {}
        self._numbered = 0
        self._standings: list[tuple[int, float, int, Proposal]] = []

    def __contains__(self, policy: Proposal) -> bool:
        """Whether a loss of a policy is known."""
        return policy in self._records and bool(self._records[policy].losses)

    def ask(self, policy: Proposal, sequences: Iterable[int]) -> list[int]:
        """Those of some sequences that a policy's losses are not known on; it is remembered as asked for."""
        if policy not in self._records:
            self._records[policy] = _Record(self._numbered)
            self._numbered += 1
        known = self._records[policy].losses
        return [s for s in sequences if s not in known]

    def add(self, policy: Proposal, sequences: Sequence[int], losses: Sequence[float]) -> None:
        """Take in new losses of a policy that was asked for."""
        record = self._records[policy]
        record.losses.update(zip(sequences, losses, strict=True))
        record.mean = float(np.mean(list(record.losses.values())))
        if record.candidate:
            self._stand(policy, record)

    def nominate(self, policy: Proposal) -> None:
        """Make a policy a candidate."""
        record = self._records[policy]
        if not record.candidate:
            record.candidate = True
            self._stand(policy, record)

    def forget_unscored(self, policy: Proposal) -> None:
        """Forget that a policy was asked for, if no loss came of it."""
        if policy in self._records and not self._records[policy].losses:
            del self._records[policy]

    def losses(self, policy: Proposal, sequences: Iterable[int]) -> list[float]:
        """Its loss on each of some sequences that it was scored on."""
        known = self._records[policy].losses
        return [known[s] for s in sequences]

    def standing(self, policy: Proposal) -> tuple[float, int]:
        """Mean loss of a policy, and how many sequences it is over."""
        record = self._records[policy]
        return record.mean, len(record.losses)

    def leader(self) -> Proposal | None:
        """The candidate that leads; None where no candidate has a finite loss."""
        while self._standings:
            count, _, _, policy = self._standings[0]
            record = self._records[policy]
            if len(record.losses) == -count and math.isfinite(record.mean):
                return policy
            heapq.heappop(self._standings)
        return None

    def candidates(self) -> list[tuple[Proposal, float, int]]:
        """Every candidate in the order that they were asked for: the policy, mean loss, sequences."""
        return [(policy, r.mean, len(r.losses)) for policy, r in self._records.items() if r.candidate]

    def _stand(self, policy: Proposal, record: _Record) -> None:
        heapq.heappush(self._standings, (-len(record.losses), record.mean, record.number, policy))
