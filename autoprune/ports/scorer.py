"""The port of a scorer: what turns policies into losses, and a wrapper that hides nothing of one.

Shapes: P policies, S sequences, U units, L levels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.space import Levels, Proposal

POLICIES_AT_ONCE = 16  # scored and journalled together, unless the scorer asks for more


class Scorer(ABC):
    """What an objective asks for losses: the evaluator, a pool of workers, or a toy.

    Three members must be there. The others are optional: what they are here is what a scorer is that lacks them. One
    that passes its questions on to another is a `ScorerWrapper`, so that it cannot hide an optional member.
    """

    @property
    @abstractmethod
    def n_sequences(self) -> int:
        """Sequences in the search split."""

    @property
    @abstractmethod
    def tokens_per_sequence(self) -> int:
        """Their length; of images, how many make up a sample."""

    @abstractmethod
    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """Losses, `[P, S]`, nats per token; what is not finite counts as infinite."""

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """Losses of the dense network, `[S]`. By default 0, which is right for a divergence from that network."""
        return np.zeros(len(sequences))

    @property
    def policies_at_once(self) -> int:
        """Policies of a batch, which is scored and journalled together: as many as keep the scorer busy."""
        return POLICIES_AT_ONCE

    @property
    def failures(self) -> Mapping[Proposal, str]:
        """Why policies could not be scored, whose losses are then infinite. By default no policy fails."""
        return {}

    @property
    def slope_passes(self) -> int:
        """Forward passes over a sequence that its slopes are charged as. By default 0: there are no slopes."""
        return 0

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64] | None:
        """Estimated change of the loss at other levels of each unit, the others as they are, `[U, L]`; NaN: unknown.

        None where the scorer cannot tell, as by default.
        """
        return None

    @property
    def step_passes(self) -> int:
        """Forward passes over a sequence that one training step is charged as. By default 0: nothing can be trained."""
        return 0

    def score_trained(self, policies: Sequence[Proposal], sequences: Sequence[int], steps: int) -> NDArray[np.float64]:
        """Losses of policies, `[P, S]`, whose networks have each taken so many training steps from their levels.

        The same request gives the same losses, whatever was asked in between: trained weights are thrown away, or kept
        for later requests of the same policy.

        Raises:
            NotImplementedError: nothing can be trained, as by default; `step_passes` says so.
        """
        raise NotImplementedError("this scorer trains no networks")


class ScorerWrapper(Scorer):
    """Another scorer, every member of the port passed on: a subclass changes only what it counts or times.

    Args:
        scorer: what answers.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @property
    def n_sequences(self) -> int:
        """The scorer's."""
        return self.scorer.n_sequences

    @property
    def tokens_per_sequence(self) -> int:
        """The scorer's."""
        return self.scorer.tokens_per_sequence

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """The scorer's."""
        return self.scorer.score(policies, sequences)

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """The scorer's."""
        return self.scorer.dense_losses(sequences)

    @property
    def policies_at_once(self) -> int:
        """The scorer's."""
        return self.scorer.policies_at_once

    @property
    def failures(self) -> Mapping[Proposal, str]:
        """The scorer's."""
        return self.scorer.failures

    @property
    def slope_passes(self) -> int:
        """The scorer's."""
        return self.scorer.slope_passes

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64] | None:
        """The scorer's."""
        return self.scorer.slopes(policy, sequences)

    @property
    def step_passes(self) -> int:
        """The scorer's."""
        return self.scorer.step_passes

    def score_trained(self, policies: Sequence[Proposal], sequences: Sequence[int], steps: int) -> NDArray[np.float64]:
        """The scorer's."""
        return self.scorer.score_trained(policies, sequences, steps)
