"""EvoPress (Sieberling et al. 2024), the method that every benchmark compares with.

(1 + lambda): each offspring is the parent after min(U{1..3}, U{1..3}) level switches between two units of one kind.
Offspring pass stages of growing token counts with ever fewer survivors, a fresh random minibatch for each stage; the
parent joins the last stage. Stages are scaled from the paper's 2,048 / 16,384 / 65,536 tokens at 64 offspring to the
data at hand. In depth spaces it starts from the best of 64 random policies, otherwise from the uniform one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.agents.racing import Patience
from autoprune.agents.training_stages import TrainsCandidates
from autoprune.objective import Objective
from autoprune.ports.agent import Agent
from autoprune.space import SLACK, Levels, SearchSpace


@dataclass(frozen=True)
class EvoPress(TrainsCandidates, Agent):
    """Args:
    offspring: lambda.
    stages: (tokens, survivors) of each stage; the last has one survivor.
    starts: number of random starting points in depth spaces.

    With `train_tokens`, the best of the first stage go through stages with training instead (training_stages.py).
    """

    offspring: int = 32
    stages: tuple[tuple[int, int], ...] = ((512, 4), (2048, 1), (8192, 1))
    starts: int = 64

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Generations until the limits, or until no switch is possible or leads to anything new."""
        training = self.training_stages(objective)
        parent = self._start(objective, rng)
        patience = Patience(objective)
        while len(_pairs(objective.space, parent)) and not patience.lost():
            candidates = [_switched(objective.space, parent, rng) for _ in range(self.offspring)]
            if training and self.trains_now(objective):
                if not training.affordable(objective, self.offspring, objective.sequences_for(self.stages[-1][0])):
                    if objective.spent.training:
                        return  # a comparison without training would undo those with it
                    self.tell_too_little()
                    training = None
                    continue
                survivors = self._select(objective, candidates, self.stages[0][0], self.trained, rng)
                chosen = training.choose(
                    objective, parent, survivors, self._minibatch(objective, self.stages[-1][0], rng)
                )
                if chosen is None:
                    self.tell_diverged()
                    training = None
                    continue
                parent = chosen
            else:
                parent = self._survivor(objective, parent, candidates, rng)
            objective.declare(parent)

    def _survivor(
        self, objective: Objective, parent: Levels, candidates: list[Levels], rng: np.random.Generator
    ) -> Levels:
        """Of the stages without training."""
        for number, (tokens, survivors) in enumerate(self.stages):
            if number == len(self.stages) - 1:
                candidates.append(parent)
            candidates = self._select(objective, candidates, tokens, survivors, rng)
        return candidates[0]

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
        losses_P = objective.by_sequence(candidates, self._minibatch(objective, tokens, rng)).mean(axis=1)
        return [candidates[int(i)] for i in np.argsort(losses_P, kind="stable")[:survivors]]

    def _minibatch(self, objective: Objective, tokens: int, rng: np.random.Generator) -> list[int]:
        count = objective.sequences_for(tokens)
        return [int(s) for s in rng.choice(objective.n_sequences, size=count, replace=False)]


def _switched(space: SearchSpace, parent: Levels, rng: np.random.Generator) -> Levels:
    """The parent after a few switches: one unit a level denser, another of its kind a level sparser."""
    changed = parent
    for _ in range(int(min(rng.integers(1, 4), rng.integers(1, 4)))):
        pairs = _pairs(space, changed)
        if len(pairs):
            up, down = pairs[rng.integers(len(pairs))]
            trial = list(changed)
            trial[up] -= 1
            trial[down] += 1
            if space.feasible(tuple(trial)):  # which sums in another order, so that a rounding may make a difference
                changed = tuple(trial)
    return changed


def _pairs(space: SearchSpace, levels: Levels) -> NDArray[np.int64]:
    """Every (unit that can be denser, unit that can be sparser) that the budgets allow to switch, `[pairs, 2]`."""
    units, level_U = np.arange(len(levels)), np.array(levels)
    _, kind_U = np.unique([unit.kind for unit in space.units], return_inverse=True)
    allowed_UU = (kind_U[:, None] == kind_U) & (units[:, None] != units)
    allowed_UU &= (level_U > 0)[:, None] & (level_U + 1 < space.n_levels_U)
    for metric, bound in space.bounds.items():
        cost_UL = space.costs[metric]
        now_U = cost_UL[units, level_U]
        dearer_U = cost_UL[units, np.maximum(level_U - 1, 0)] - now_U
        saved_U = now_U - cost_UL[units, np.minimum(level_U + 1, space.n_levels_U - 1)]
        room = bound + SLACK * cost_UL[:, 0].sum() - now_U.sum()
        allowed_UU &= dearer_U[:, None] - saved_U <= room
    return np.argwhere(allowed_UU)
