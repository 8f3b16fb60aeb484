"""Uniform: keeps the same share of every unit, as nearly as its levels allow. Every search must beat this baseline."""

from dataclasses import dataclass

import numpy as np

from autoprune.objective import Objective
from autoprune.ports.agent import Agent


@dataclass(frozen=True)
class Uniform(Agent):
    """Scores one policy."""

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Score the densest uniform policy within the budgets on the whole search split."""
        objective([objective.space.uniform()])
