"""The losses that an objective was asked for: replayed where the journal has them, and computed where they are new.

Shapes: P policies, S sequences.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.archive import Archive
from autoprune.fidelity import Training
from autoprune.journal import Journal, Replay, Score
from autoprune.ports.scorer import Scorer
from autoprune.space import Proposal
from autoprune.spending import Account


class Losses:
    """Fills the archive of one search.

    Args:
        scorer: computes losses.
        training: computes losses after training steps.
        archive: gets the losses.
        account: keeps the seconds.
        replay: what the interrupted search had computed.
        journal: gets what is new.

    Attributes:
        computed: tokens that this process scored; replayed scores are not counted.
    """

    def __init__(
        self, scorer: Scorer, training: Training, archive: Archive, account: Account, replay: Replay, journal: Journal
    ) -> None:
        self.computed = 0
        self._scorer, self._training, self._archive = scorer, training, archive
        self._account, self._replay, self._journal = account, replay, journal

    def compute(self, todo: Mapping[Proposal, list[int]], steps: int) -> None:
        """Fill in losses: from the replay where it has them, otherwise by the scorer, journalled at once.

        Args:
            todo: numbers of the sequences that each policy is scored on.
            steps: training steps that each policy's network takes before.

        Raises:
            LimitReached: the time of the search was over within a training.
        """
        fresh: dict[tuple[int, ...], list[Proposal]] = {}
        for policy, new in todo.items():
            replayed = self._replay.take(policy, new, steps)
            if replayed is None:
                fresh.setdefault(tuple(new), []).append(policy)
                continue
            self._archive.add(policy, new, replayed.losses, steps)
            self._account.goes_on(replayed.seconds)
        for sequences, policies in fresh.items():
            losses_PS = self._scored(policies, sequences, steps)
            self.computed += losses_PS.size * self._scorer.tokens_per_sequence
            now, failures = self._account.stop_clock(), self._scorer.failures
            passes = [self._training.passes(self._archive, policy, steps) for policy in policies]
            scores = [
                Score(policy, sequences, losses, now, failures.get(policy), steps, charged)
                for policy, losses, charged in zip(policies, losses_PS.tolist(), passes, strict=True)
            ]
            self._journal.append(scores)
            for score in scores:
                self._archive.add(score.proposal, sequences, score.losses, steps)

    def _scored(self, policies: list[Proposal], sequences: Sequence[int], steps: int) -> NDArray[np.float64]:
        """Losses from the scorer, `[P, S]`; what is not finite is infinite."""
        if steps:
            losses_PS = self._training.scorer.score_trained(policies, sequences, steps)
        else:
            losses_PS = self._scorer.score(policies, sequences)
        return np.where(np.isfinite(losses_PS), losses_PS, np.inf)
