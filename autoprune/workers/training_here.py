"""Training of candidates in a search on workers: it happens in this process, as slopes do, while workers score."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.ports.scorer import Scorer, ScorerWrapper
from autoprune.space import Proposal


class TrainsHere(ScorerWrapper):
    """A pool's scorer whose candidates are trained by an evaluator in this process.

    Args:
        scorer: the pool's.
        here: trains candidates, and scores them afterwards.
        network: is held meanwhile, because several searches may share the network.
    """

    def __init__(self, scorer: Scorer, here: Scorer, network: threading.Lock) -> None:
        super().__init__(scorer)
        self._here, self._network = here, network

    @property
    def step_passes(self) -> int:
        """Those of the evaluator; 0 where blocks are streamed to the device."""
        return self._here.step_passes

    @property
    def step_items(self) -> int:
        """The evaluator's."""
        return self._here.step_items

    @property
    def training_items(self) -> int | None:
        """The evaluator's."""
        return self._here.training_items

    def training_passes(self, before: int, steps: int) -> int:
        """The evaluator's."""
        return self._here.training_passes(before, steps)

    def score_trained(self, policies: Sequence[Proposal], sequences: Sequence[int], steps: int) -> NDArray[np.float64]:
        """The evaluator's."""
        with self._network:
            return self._here.score_trained(policies, sequences, steps)
