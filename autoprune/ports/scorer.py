"""The port of a scorer, which computes losses of policies, and a wrapper that passes every member on.

Shapes: P policies, S sequences, U units, L levels.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.ports.candidate_training import CandidateTraining
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

    @property
    def step_items(self) -> int:
        """Number of tokens, or images, that a training step reads. The default is that of one sequence."""
        return self.tokens_per_sequence

    @property
    def training_items(self) -> int | None:
        """Number of tokens, or images, that there are to train on. The default, None, means that it is not known."""
        return None

    def training_passes(self, before: int, steps: int) -> int:
        """Forward passes that are charged for taking a policy's network from `before` training steps to `steps`."""
        return (steps - before) * self.step_passes

    def with_training(self, how: CandidateTraining, tick: Callable[[], None]) -> "Scorer":
        """A scorer of the same losses whose `score_trained` trains as `how` says.

        Args:
            how: what is trained, and how. The default ignores it and returns this scorer.
            tick: to be called before each training step. It may raise an exception, which ends the training.
        """
        return self

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

    @property
    def step_items(self) -> int:
        """The scorer's."""
        return self.scorer.step_items

    @property
    def training_items(self) -> int | None:
        """The scorer's."""
        return self.scorer.training_items

    def training_passes(self, before: int, steps: int) -> int:
        """The scorer's."""
        return self.scorer.training_passes(before, steps)

    def with_training(self, how: CandidateTraining, tick: Callable[[], None]) -> "Scorer":
        """This wrapper around the scorer's."""
        wrapper = copy.copy(self)
        wrapper.scorer = self.scorer.with_training(how, tick)
        return wrapper

    def score_trained(self, policies: Sequence[Proposal], sequences: Sequence[int], steps: int) -> NDArray[np.float64]:
        """The scorer's."""
        return self.scorer.score_trained(policies, sequences, steps)
