"""Random search: independent samples of the space, repaired to the budgets (Bergstra & Bengio 2012)."""

from dataclasses import dataclass

import numpy as np

from autoprune.objective import Objective
from autoprune.ports.agent import Agent
from autoprune.space import Levels


@dataclass(frozen=True)
class Random(Agent):
    """Args:
    tokens: spent on each policy.
    batch: policies proposed at once.
    max_misses: batches in a row without a new policy after which the space counts as exhausted.
    """

    tokens: int = 8192
    batch: int = 16
    max_misses: int = 20

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Sample until the limits, or until the space seems exhausted."""
        seen: set[Levels] = set()
        misses = 0
        while misses < self.max_misses:
            batch = {objective.space.sample(rng) for _ in range(self.batch)} - seen
            misses = 0 if batch else misses + 1
            seen |= batch
            if batch:
                objective(sorted(batch), self.tokens)
