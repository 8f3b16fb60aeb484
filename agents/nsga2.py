"""NSGA-II (Deb et al. 2002) of Optuna: finds a Pareto front of the loss and the budgeted costs in one search.

The budgets bound the front from above. It starts from the policies that are best under the sum of single-unit
sensitivities at evenly spaced costs. A child is a crossover of two parents or a copy of one, after a few steps of one
level: a unit denser, a unit sparser, or both (the trade that keeps the cost).

As with every agent, the answer is the best policy within the budgets. `front` has the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.trial import FrozenTrial
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from autoprune.agents.sampled import Distributions, Floats, SampledAgent
from autoprune.envs import sensitivity
from autoprune.objective import Objective
from autoprune.records.storage import quiet
from autoprune.space import Levels, SearchSpace


@dataclass
class NSGA2(SampledAgent):
    """Args:
    radius: number of levels above and below the start that are searched; 0 is all.
    population: number of policies in a generation.
    least: share of the budgets at which the front begins.
    points: the most policies of the front that are kept at the end.
    last: share of the limits for the end, when the front and its starting policies are measured on one sample. The few
        tokens of a trial favour the policies that were chosen with them.
    """

    pareto = True

    radius: NonNegativeInt = 0
    population: PositiveInt = 24
    least: PositiveFloat = 0.5
    points: PositiveInt = 12
    last: PositiveFloat = 0.25

    def __post_init__(self) -> None:
        """Nothing has been searched."""
        super().__post_init__()
        self._start: list[Levels] = []
        self._measured: dict[Levels, float] = {}

    def sampler(self, seed: int, distributions: Distributions, reference: Levels) -> BaseSampler:
        """Optuna's, with children of our own."""
        with quiet():
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
        self._start = list(dict.fromkeys([reference, *found]))
        return self._start

    def fitted(self, space: SearchSpace, levels: Levels, rng: np.random.Generator) -> Levels:
        """Thinned until the budgets hold; what is left of them stays left."""
        return space.thinned(levels, rng)

    def over(self, objective: Objective) -> bool:
        """Whether the rest of the limits is for the front."""
        return objective.progress >= 1 - self.last

    def finish(self, study: optuna.Study, objective: Objective) -> None:
        """Measure the study's front, and the start's beside it, on the sample of races or what tokens there are."""
        metric = next(iter(objective.space.budgets))
        found, start = (_spaced(objective.space, one, metric, self.points) for one in (self._found(), self._start))
        candidates = list(dict.fromkeys([*found, *start]))
        each = min(self.race_tokens, objective.tokens_left / len(candidates))
        sample = range(min(objective.n_sequences, int(each / objective.tokens_per_sequence)))
        if not sample:  # a search this short has no front beside what it has scored
            return
        losses_P = objective.by_sequence(candidates, sample).mean(axis=1)
        self._measured = {policy: float(loss) for policy, loss in zip(candidates, losses_P, strict=True)}

    def front(self, objective: Objective) -> list[Levels]:
        """Policies that none of the others beats in the loss and in every cost, the dearest first."""
        space, metrics = objective.space, list(objective.space.budgets)
        losses = self._measured or {policy: objective.loss(policy)[0] for policy in self._found()}
        values = {p: (loss, *(space.cost(p, metric) for metric in metrics)) for p, loss in losses.items()}
        kept = [p for p, one in values.items() if not any(_beats(other, one) for other in values.values())]
        return _spaced(space, kept, metrics[0], self.points)

    def _found(self) -> list[Levels]:
        """The study's front."""
        trials = self.study.best_trials if self.study else []
        return list(dict.fromkeys(tuple(trial.user_attrs["levels"]) for trial in trials))


def _beats(other: tuple[float, ...], one: tuple[float, ...]) -> bool:
    return other != one and all(x <= y for x, y in zip(other, one, strict=True))


def _spaced(space: SearchSpace, policies: Sequence[Levels], metric: str, points: int) -> list[Levels]:
    """The policies, the dearest first, thinned to evenly spaced costs."""
    ordered = sorted(policies, key=lambda policy: (-space.cost(policy, metric), policy))
    if len(ordered) <= points:
        return ordered
    cost_P = np.array([space.cost(policy, metric) for policy in ordered])
    wanted = np.linspace(cost_P[0], cost_P[-1], points)
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
