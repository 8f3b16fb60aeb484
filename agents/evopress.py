"""EvoPress (Sieberling et al. 2024), the peer that every benchmark has in it.

(1 + lambda): each offspring is the parent after min(U{1..3}, U{1..3}) level switches between two units of one kind.
Offspring pass stages of growing token counts with ever fewer survivors, a fresh random minibatch for each stage; the
parent joins the last stage. Stages are scaled from the paper's 2,048 / 16,384 / 65,536 tokens at 64 offspring to the
data at hand. In depth spaces it starts from the best of 64 random policies, otherwise from the uniform one.
"""

from dataclasses import dataclass

import numpy as np

from autoprune.agents.racing import Patience
from autoprune.objective import Objective
from autoprune.space import Levels, SearchSpace


@dataclass(frozen=True)
class EvoPress:
    """Args:
    offspring: lambda.
    stages: (tokens, survivors) of each stage; the last has one survivor.
    starts: random starting points in depth spaces.
    """

    offspring: int = 32
    stages: tuple[tuple[int, int], ...] = ((512, 4), (2048, 1), (8192, 1))
    starts: int = 64

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Generations until the limits, or until switches lead to nothing new."""
        parent = self._start(objective, rng)
        patience = Patience(objective)
        while not patience.lost():
            candidates = [_switched(objective.space, parent, rng) for _ in range(self.offspring)]
            for number, (tokens, survivors) in enumerate(self.stages):
                if number == len(self.stages) - 1:
                    candidates.append(parent)
                candidates = self._select(objective, candidates, tokens, survivors, rng)
            parent = candidates[0]
            objective.declare(parent)

    def _start(self, objective: Objective, rng: np.random.Generator) -> Levels:
        uniform = objective.space.uniform()
        tokens = self.stages[0][0]
        self._select(objective, [uniform], tokens, 1, rng)
        objective.declare(uniform)
        if np.any(objective.space.n_levels_U > 2):
            return uniform
        samples = [objective.space.sample(rng) for _ in range(self.starts)]
        start = self._select(objective, samples, tokens, 1, rng)[0]
        objective.declare(start)
        return start

    def _select(
        self, objective: Objective, candidates: list[Levels], tokens: int, survivors: int, rng: np.random.Generator
    ) -> list[Levels]:
        count = objective.sequences_for(tokens)
        minibatch = rng.choice(objective.n_sequences, size=count, replace=False)
        losses_P = objective.by_sequence(candidates, [int(s) for s in minibatch]).mean(axis=1)
        return [candidates[int(i)] for i in np.argsort(losses_P, kind="stable")[:survivors]]


def _switched(space: SearchSpace, parent: Levels, rng: np.random.Generator) -> Levels:
    """The parent after a few switches: one unit a level denser, another of its kind a level sparser."""
    if len(parent) == 1:  # nothing to switch with
        return parent
    changed = list(parent)
    for _ in range(int(min(rng.integers(1, 4), rng.integers(1, 4)))):
        for _ in range(100):  # until a pair allows it
            up, down = (int(i) for i in rng.choice(len(parent), size=2, replace=False))
            same_kind = space.units[up].kind == space.units[down].kind
            if same_kind and changed[up] > 0 and changed[down] + 1 < space.n_levels_U[down]:
                trial = list(changed)
                trial[up] -= 1
                trial[down] += 1
                if space.feasible(tuple(trial)):
                    changed = trial
                    break
    return tuple(changed)
