"""The port of an agent."""

from typing import Protocol

import numpy as np

from autoprune.objective import Objective


class Agent(Protocol):
    """A search algorithm: a dataclass of its settings with one method.

    Contracts, tested over every registered agent: only feasible policies are scored as candidates; all randomness
    comes from `rng`, so that two runs of one seed are equal and a killed run, replayed, goes on as if uninterrupted;
    better than `random` at equal tokens on a toy with a known optimum (baselines excepted).

    An agent that has learned something may have a method `save(directory)` too; it is called when a search ends.
    """

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Propose policies to `objective` until it raises `LimitReached` or there is nothing left to try."""
        ...
