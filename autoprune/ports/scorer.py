"""The port of a scorer, which computes losses of policies, and a wrapper that passes every member on.

Shapes: P policies, S sequences, U units, L levels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.space import Levels, Proposal

POLICIES_AT_ONCE = 16  # scored and journalled together, unless the scorer asks for more


class Scorer(ABC):
    """Computes losses for an objective: the evaluator, a pool of workers, or a toy.

    Three members are required. The others are optional and have defaults here. A scorer that delegates to another one
    derives from `ScorerWrapper`, so that it cannot hide an optional member.
    """

    @property
    @abstractmethod
    def n_sequences(self) -> int:
        """Sequences in the search split."""

    @property
    @abstractmethod
    def tokens_per_sequence(self) -> int:
        """Number of tokens in a sequence, or of images in a sample."""

    @abstractmethod
    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """Losses `[P, S]`, nats per token. Values that are not finite count as infinite."""

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """Losses of the dense network, `[S]`. By default 0, which is right for a divergence from that network."""
        return np.zeros(len(sequences))

    @property
    def policies_at_once(self) -> int:
        """Number of policies in a batch, which is scored and journalled together. It should keep the scorer busy."""
        return POLICIES_AT_ONCE

    @property
    def failures(self) -> Mapping[Proposal, str]:
        """Policies that could not be scored, and why. Their losses are infinite. By default no policy fails."""
        return {}

    @property
    def slope_passes(self) -> int:
        """Forward passes that are charged for the slopes of one sequence. The default, 0, means that there are none."""
        return 0

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64] | None:
        """Estimated change of the loss if one unit changes its level, for every unit and level, `[U, L]`; NaN is
        unknown.

        The default returns None: the scorer has no slopes.
        """
        return None

    @property
    def step_passes(self) -> int:
        """Forward passes that are charged for one training step. The default, 0, means that nothing can be trained."""
        return 0

    def score_trained(self, policies: Sequence[Proposal], sequences: Sequence[int], steps: int) -> NDArray[np.float64]:
        """Losses `[P, S]` of policies after a number of training steps of each policy's network.

        Equal requests give equal losses, whatever happens in between. Trained weights are thrown away, or kept for
        later requests of the same policy.

        Raises:
            NotImplementedError: nothing can be trained. This is the default, and `step_passes` is then 0.
        """
        raise NotImplementedError("this scorer trains no networks")


class ScorerWrapper(Scorer):
    """Delegates every member of the port to another scorer. A subclass overrides what it counts or times.

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
