"""Additive: every unit measured alone, the policies whose sums are least under the budgets found exactly, and raced.

The baseline of Puzzle (Bercovich et al. 2024): losses of single units are taken to add up, so that an integer programme
finds the best policy under any number of budgets. Since they do not quite add up, near-optimal policies that differ
from each other race on the search split.
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
    base: what all other units are at while one is measured: the dense network, as in Puzzle, or the uniform policy.
    points: levels of each unit that are measured; fewer where the limits do not allow it.
    share: of the limits, for measuring: on as many sequences as that pays for.
    alternatives: policies that race the best one, at most.
    apart: units that any two of them differ in, at least.
    """

    base: Literal["dense", "uniform"] = "dense"
    points: PositiveInt = 3
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    alternatives: NonNegativeInt = 15
    apart: PositiveInt = 3

    def __post_init__(self) -> None:
        """Find what is missing before anything is computed."""
        knapsack.check_scipy("additive")

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Measure, solve, race; ends by itself."""
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
