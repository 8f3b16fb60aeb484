"""What an objective knows of training candidates: who trains them, and how many forward passes that is charged as."""

from collections.abc import Callable

from autoprune.archive import Archive
from autoprune.ports.candidate_training import CandidateTraining
from autoprune.ports.scorer import Scorer
from autoprune.space import Proposal


class Training:
    """The training of candidates in one search.

    Args:
        scorer: the scorer of the search.
        tick: called before each training step. It raises `LimitReached` when the time of the search is over.
    """

    def __init__(self, scorer: Scorer, tick: Callable[[], None]) -> None:
        self._plain, self._tick = scorer, tick
        self._how = CandidateTraining()
        self._scorer: Scorer | None = None
        self._used = False

    def choose(self, how: CandidateTraining) -> None:
        """Set how candidates are trained, before the first of them is.

        Raises:
            ValueError: candidates have been trained in another way, with which losses could not be compared.
        """
        if self._used and how != self._how:
            raise ValueError(f"an agent asked for {how} after candidates were trained with {self._how}")
        if how != self._how:
            self._how, self._scorer = how, None

    @property
    def scorer(self) -> Scorer:
        """Scores trained candidates."""
        if self._scorer is None:
            self._scorer = self._plain.with_training(self._how, self._tick)
        return self._scorer

    @property
    def possible(self) -> bool:
        """Whether networks can be trained here."""
        return self.scorer.step_passes > 0

    @property
    def step_items(self) -> int:
        """Number of tokens, or images, that a training step reads."""
        return self.scorer.step_items

    @property
    def items(self) -> int | None:
        """Number of tokens, or images, that there are to train on; None if that is not known."""
        return self.scorer.training_items

    def passes_between(self, before: int, steps: int) -> int:
        """Forward passes that are charged for taking a policy's network from `before` training steps to `steps`."""
        return self.scorer.training_passes(before, steps)

    def passes(self, archive: Archive, policy: Proposal, steps: int) -> int:
        """Forward passes that are charged before a policy is scored after `steps` steps.

        Steps that the policy's network has taken already are not charged again.
        """
        if not steps:
            return 0
        self._used, before = True, archive.steps_up_to(policy, steps)
        return 0 if before == steps else self.passes_between(before, steps)
