"""Random search: independent samples of the space, repaired to the budgets (Bergstra & Bengio 2012)."""

from dataclasses import dataclass

import numpy as np

from autoprune.objective import Objective
from autoprune.ports.agent import Agent
from autoprune.space import Levels


@dataclass(frozen=True)
class Random(Agent):
    """Args:
    tokens: number of tokens that each policy is scored on.
    batch: number of policies proposed at once.
    max_misses: number of consecutive batches without a new policy after which the search ends.
    """

    tokens: int = 8192
    batch: int = 16
    max_misses: int = 20

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Sample until the limits are spent or the space seems exhausted."""
        seen: set[Levels] = set()
        misses = 0
        while misses < self.max_misses:
            batch = {objective.space.sample(rng) for _ in range(self.batch)} - seen
            misses = 0 if batch else misses + 1
            seen |= batch
            if batch:
                objective(sorted(batch), self.tokens)
