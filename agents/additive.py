"""Additive: measures every unit alone, finds the policies with the least sum of losses exactly, and races them.

This is the baseline of Puzzle (Bercovich et al. 2024). It assumes that the losses of single units add up, so that an
integer programme finds the best policy under any number of budgets. The assumption is only approximate. Therefore
several near-optimal policies race on the search split.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf, log2
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from autoprune.agents import knapsack
from autoprune.agents.racing import race
from autoprune.envs import sensitivity
from autoprune.objective import Objective
from autoprune.ports.agent import Agent
from autoprune.space import Levels


@dataclass
class Additive(Agent):
    """Args:
    base: the policy of all other units while one is measured: the dense network, as in Puzzle, or the uniform one.
    points: number of levels of each unit that are measured. It is less where the limits require it.
    share: share of the limits that is spent on measurements.
    alternatives: the most policies that race the best one.
    apart: the least number of units in which any two of them differ.
    """

    base: Literal["dense", "uniform"] = "dense"
    points: PositiveInt = 3
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    alternatives: NonNegativeInt = 15
    apart: PositiveInt = 3

    def __post_init__(self) -> None:
        """Check that the solver is installed before anything is computed."""
        knapsack.check_scipy("additive")

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Measure, solve, race. The search ends by itself."""
        uniform = objective.space.uniform()
        objective([uniform], objective.tokens_per_sequence)
        objective.declare(uniform)
        base = uniform if self.base == "uniform" else None
        sequences, points = self._measurements(objective, base)
        if not points:
            return
        added_UL = sensitivity.measure(objective, range(sequences), points, base)
        found = knapsack.solutions(objective.space, added_UL, self.apart)
        best = next(found)
        objective.by_sequence([best], [0])
        objective.declare(best)
        self._race(objective, best, found, rng)

    def _measurements(self, objective: Objective, base: Levels | None) -> tuple[int, int]:
        """Sequences, and levels of each unit, that the share pays for: few levels are better than none, 0 if none."""
        limits = objective.limits
        scores = inf if limits.evals is None else self.share * limits.evals
        sequences = inf if limits.tokens is None else self.share * limits.tokens / objective.tokens_per_sequence
        for points in range(self.points, 0, -1):
            count = len(sensitivity.probes(objective.space, points, base))
            if count <= min(scores, sequences):
                return int(min(objective.n_sequences, sequences / max(1, count))), points
        return 0, 0

    def _race(self, objective: Objective, best: Levels, found: Iterator[Levels], rng: np.random.Generator) -> None:
        """As many alternatives, and the uniform policy, on as many sequences as what is left pays for."""
        left = objective.tokens_left / objective.tokens_per_sequence
        sequences = int(min(objective.n_sequences, left / 3))
        if not sequences:
            return
        rounds = log2(sequences)
        # halving while doubling: each rival costs a sequence in the first round, and half of one in each later round;
        # the last one, and the incumbent, cost the whole sample
        affordable = (left - 2 * sequences) / (1 + rounds / 2)
        if objective.limits.evals is not None:
            affordable = min(affordable, (objective.limits.evals - objective.spent.evals - rounds) / 2)
        rivals = [objective.space.uniform()]
        for rival in islice(found, int(max(0, min(self.alternatives, affordable - 1)))):
            objective.look_at_clock()  # solving takes its time
            rivals.append(rival)
        sample = [int(s) for s in rng.permutation(objective.n_sequences)[:sequences]]
        objective.declare(race(objective, best, rivals, sample) or best)
