"""NSGA-II (Deb et al. 2002), as in Optuna: the loss against the budgeted costs, a whole Pareto front in one search.

The budgets bound the front from above. It starts from the policies that are best under the sum of single-unit
sensitivities at evenly spaced costs. A child is a crossover of two parents or a copy of one, after a few steps of one
level: a unit denser, a unit sparser, or both (the trade that keeps the cost).

The answer is the best policy within the budgets, as of every agent; `front` is the rest.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.trial import FrozenTrial
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from autoprune.agents.sampled import Distributions, Floats, SampledAgent
from autoprune.envs import sensitivity
from autoprune.objective import Objective
from autoprune.space import Levels, SearchSpace


@dataclass
class NSGA2(SampledAgent):
    """Args:
    radius: levels from the start's that are searched, up and down; 0 is all.
    population: policies of a generation.
    least: the front begins at this share of the budgets.
    points: policies of the front that are kept at the end, at most.
    last: share of the tokens with which the front is measured on the sample of races, at the end.
    """

    pareto = True

    radius: NonNegativeInt = 0
    population: PositiveInt = 24
    least: PositiveFloat = 0.5
    points: PositiveInt = 12
    last: PositiveFloat = 0.125

    def sampler(self, seed: int, distributions: Distributions, reference: Levels) -> BaseSampler:
        """Optuna's, with children of our own."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return NSGAIISampler(population_size=self.population, seed=seed, child_generation_strategy=Children(seed))

    def metrics_of(self, space: SearchSpace) -> list[str]:
        """Every budgeted metric."""
        return list(space.budgets)

    def first(self, space: SearchSpace, reference: Levels, added_UL: Floats | None) -> Sequence[Levels]:
        """Policies at evenly spaced costs, up to the budgets and down to what can be reached."""
        found = []
        smallest = {metric: space.cost(space.sparsest, metric) for metric in space.budgets}
        for share in np.linspace(self.least, 1.0, self.population - 1):
            budgets = {metric: max(share * bound, smallest[metric]) for metric, bound in space.budgets.items()}
            tighter = space.rebudgeted(budgets)
            found.append(tighter.uniform() if added_UL is None else sensitivity.additive_solution(tighter, added_UL))
        return list(dict.fromkeys([reference, *found]))

    def fitted(self, space: SearchSpace, levels: Levels, rng: np.random.Generator) -> Levels:
        """Thinned until the budgets hold; what is left of them stays left."""
        return space.thinned(levels, rng)

    def over(self, objective: Objective) -> bool:
        """Whether the rest of the tokens is for the front."""
        return self.last * (objective.limits.tokens or 0) >= objective.tokens_left

    def finish(self, study: optuna.Study, objective: Objective) -> None:
        """Measure the front on the sample of races."""
        candidates = self._candidates(objective.space)
        if candidates:  # none where sensitivities and the first race left no tokens for a batch
            objective(candidates, self.race_tokens)

    def front(self, objective: Objective) -> list[Levels]:
        """Policies that none of the others beats in the loss and in every cost, the dearest first."""
        space = objective.space
        candidates = self._candidates(space)
        values = [(objective.loss(p)[0], *(space.cost(p, metric) for metric in space.budgets)) for p in candidates]
        beaten = [
            any(other != one and all(x <= y for x, y in zip(other, one, strict=True)) for other in values)
            for one in values
        ]
        return [policy for policy, out in zip(candidates, beaten, strict=True) if not out]

    def _candidates(self, space: SearchSpace) -> list[Levels]:
        """The study's front, the dearest first, thinned to evenly spaced costs."""
        trials = self.study.best_trials if self.study else []
        (metric, *_) = space.budgets
        policies = {tuple(trial.user_attrs["levels"]) for trial in trials}
        ordered = sorted(policies, key=lambda policy: (-space.cost(policy, metric), policy))
        if len(ordered) <= self.points:
            return ordered
        cost_P = np.array([space.cost(policy, metric) for policy in ordered])
        wanted = np.linspace(cost_P[0], cost_P[-1], self.points)
        return [ordered[i] for i in sorted({int(np.abs(cost_P - cost).argmin()) for cost in wanted})]


class Children:
    """Makes a child of a population, for Optuna's NSGAIISampler.

    Args:
        seed: of all draws.
        crossover: share of children with two parents.
        more_steps: chance of each further step.
    """

    def __init__(self, seed: int, crossover: float = 0.5, more_steps: float = 0.5) -> None:
        self._rng = np.random.default_rng(seed)
        self._crossover, self._more_steps = crossover, more_steps

    def __call__(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution], parents: list[FrozenTrial]
    ) -> dict[str, Any]:
        """Parameters of a child."""
        rng = self._rng
        mother, father = (parents[int(i)].params for i in rng.integers(len(parents), size=2))
        if rng.random() < self._crossover:
            mother = {name: (mother if rng.random() < 0.5 else father)[name] for name in search_space}
        child = {name: int(mother[name]) for name in search_space}
        for _ in range(int(rng.geometric(1 - self._more_steps))):
            kind = rng.integers(3)  # denser, sparser, both
            for step in ((-1,), (1,), (-1, 1))[kind]:
                name = list(child)[int(rng.integers(len(child)))]
                allowed = search_space[name]
                assert isinstance(allowed, IntDistribution)
                child[name] = int(np.clip(child[name] + step, allowed.low, allowed.high))
        return child
