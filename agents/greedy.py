"""Greedy: from dense, always take the step with the least loss for its savings, until the budgets hold.

Steps are queued by their last measured price and measured again only when they reach the top (lazy greedy, Minoux
1978). So each step costs a few measurements instead of one for every unit.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from autoprune.objective import Objective
from autoprune.ports.agent import Agent
from autoprune.space import Levels, SearchSpace


@dataclass(frozen=True)
class Greedy(Agent):
    """Args:
    measurements: expected number of measurements for each step. It determines the tokens of a measurement.
    tokens: the most tokens for one measurement.
    """

    measurements: float = 4.0
    tokens: int = 8192

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Walk from dense to the budgets, then score where it ended on the whole split."""
        space = objective.space
        objective([space.uniform()])
        sequences = range(self._fidelity(objective))
        reserve = (objective.n_sequences + len(sequences)) * objective.tokens_per_sequence

        def measure(policy: Levels) -> float:
            return float(objective.by_sequence([policy], sequences, probe=True).mean())

        current = space.floor
        loss = measure(current)
        queue: list[tuple[float, int, Levels]] = [(-np.inf, u, ()) for u in range(len(space.units))]
        while not space.feasible(current):
            price, u, context = heapq.heappop(queue)
            step = _sparser(space, current, u)
            if step is None:
                continue
            # the last tokens are for the answer: when they are reached, old prices must do
            if context != current and objective.tokens_left >= reserve:
                price = (measure(step) - loss) / _saving(space, current, step)
                heapq.heappush(queue, (price, u, current))
                continue
            current = step
            if objective.tokens_left >= reserve:
                loss = measure(current)
            heapq.heappush(queue, (price, u, ()))
        objective([space.repair(current)])

    def _fidelity(self, objective: Objective) -> int:
        """Sequences for one measurement, so that the walk ends within the tokens and the last score still fits."""
        space = objective.space
        steps = float(np.sum(space.n_levels_U - 1)) / 2 + len(space.units)
        reserve = objective.n_sequences * objective.tokens_per_sequence
        affordable = (objective.tokens_left - reserve) / (self.measurements * steps)
        return objective.sequences_for(int(max(0, min(self.tokens, affordable))))


def _sparser(space: SearchSpace, levels: Levels, u: int) -> Levels | None:
    thinner = space.steps.thinner(u, levels[u])
    return None if thinner is None else (*levels[:u], thinner, *levels[u + 1 :])


def _saving(space: SearchSpace, before: Levels, after: Levels) -> float:
    """What a step saves towards the broken budgets, as a share of what must be saved from dense in all."""
    saved = 0.0
    for metric, bound in space.bounds.items():
        cost = space.added(before, metric)
        useful = min(cost - space.added(after, metric), max(0.0, cost - bound))
        saved += useful / (space.added(space.dense, metric) - bound) if useful > 0 else 0.0
    return max(saved, 1e-12)
