"""The common part of agents on Optuna's samplers: ask a sampler for levels, score them, tell it the losses.

- Single-unit sensitivities are measured first, on few tokens. The policy with the least sum is the reference. It is the
  first trial, and levels around it are searched.
- A proposal is repaired to the budgets before it is scored.
- The sampler is told how much worse than the reference a trial is on the same sequences. So values stay comparable when
  samples change from batch to batch.
- Optuna's pruners are not used. A batch is scored on few tokens, and its best trials race the incumbent on more.

This study is in memory, and a resumed search makes it again. The run's study on disk is another one
(autoprune/records/record.py).

Shapes: N trials, S sequences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from autoprune.agents.racing import PATIENCE, Incumbent, Patience, begin
from autoprune.objective import Objective
from autoprune.ports.agent import Agent
from autoprune.records.storage import quiet
from autoprune.space import Levels, SearchSpace

Floats = NDArray[np.float64]
Distributions = Mapping[str, IntDistribution]


@dataclass
class SampledAgent(Agent):
    """Args:
    batch: trials asked for at once and scored together.
    tokens: size of the sample for the first batches, in tokens.
    radius: levels from the reference's that are searched, up and down; 0 is all.
    race_tokens: size of the sample for races at the start, in tokens.
    widening: how far both samples grow by the end: 0 is not at all, 1 is the whole split, geometric in between.
    finalists: trials of each batch that race the incumbent.
    sensitivity_tokens: tokens for each sensitivity. With 0 none is measured, and the start is the uniform policy.
    """

    models_losses: ClassVar[bool] = False  # whether the sampler takes trials that it has not proposed
    patience: ClassVar[int] = PATIENCE  # batches without anything new after which a search is over

    batch: PositiveInt = 8
    tokens: PositiveInt = 512
    radius: NonNegativeInt = 2
    race_tokens: PositiveInt = 4096
    widening: NonNegativeFloat = 0.5
    finalists: NonNegativeInt = 3
    sensitivity_tokens: NonNegativeInt = 512

    def __post_init__(self) -> None:
        """Nothing has been searched."""
        self.study: optuna.Study | None = None

    def sampler(self, seed: int, distributions: Distributions, reference: Levels) -> BaseSampler:
        """The sampler of a search."""
        raise NotImplementedError

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Batches of trials until the limits, or until the sampler proposes nothing new."""
        space = objective.space
        incumbent, reference, added_UL = begin(objective, rng, self)
        incumbent.challenge([reference])
        distributions = self.distributions(space, reference)
        sampler = self.sampler(int(rng.integers(2**31 - 1)), distributions, reference)
        with quiet():
            directions = [StudyDirection.MINIMIZE] * (1 + len(self.metrics_of(space)))
            study = self.study = optuna.create_study(sampler=sampler, directions=directions)
        for levels in self.first(space, reference, added_UL):
            study.enqueue_trial(parameters(distributions, levels))
        patience = Patience(objective, self.patience)
        while not (patience.lost() or self.over(objective)):
            self._batch(study, distributions, reference, incumbent, rng)
        self.finish(study, objective)

    def distributions(self, space: SearchSpace, reference: Levels) -> dict[str, IntDistribution]:
        """The levels of each unit that are searched, by the unit's name."""
        found = {}
        for unit, level in zip(space.units, reference, strict=True):
            last = len(unit.levels) - 1
            reach = self.radius or last
            found[unit.name] = IntDistribution(max(0, level - reach), min(last, level + reach))
        return found

    def first(self, space: SearchSpace, reference: Levels, added_UL: Floats | None) -> Sequence[Levels]:
        """Policies that the search begins with."""
        return [reference]

    def metrics_of(self, space: SearchSpace) -> list[str]:
        """Costs that are objectives beside the loss."""
        return []

    def fitted(self, space: SearchSpace, levels: Levels, rng: np.random.Generator) -> Levels:
        """A proposal within the budgets."""
        return space.repair(levels, rng)

    def over(self, objective: Objective) -> bool:
        """Whether it is time for what comes last."""
        return False

    def finish(self, study: optuna.Study, objective: Objective) -> None:
        """What comes last, within the limits."""

    def _batch(
        self,
        study: optuna.Study,
        distributions: dict[str, IntDistribution],
        reference: Levels,
        incumbent: Incumbent,
        rng: np.random.Generator,
    ) -> None:
        objective = incumbent.objective
        trials = []
        for _ in range(self.batch):
            objective.look_at_clock()  # some samplers take their time
            trials.append(study.ask(dict(distributions)))
        asked = [tuple(trial.params[name] for name in distributions) for trial in trials]
        policies = [self.fitted(objective.space, levels, rng) for levels in asked]
        sample = incumbent.draw(self.tokens)
        losses_PS = objective.by_sequence([reference, *policies], sample)
        worse_N = (losses_PS[1:] - losses_PS[0]).mean(axis=1)
        for trial, policy, worse in zip(trials, policies, worse_N, strict=True):
            self.tell(study, trial, policy, float(worse), objective.space, distributions)
        order = np.argsort(worse_N, kind="stable")[: self.finalists]
        incumbent.challenge([policies[i] for i in order], sample)

    def tell(
        self,
        study: optuna.Study,
        trial: optuna.Trial,
        policy: Levels,
        worse: float,
        space: SearchSpace,
        distributions: Distributions,
    ) -> None:
        """Tell the sampler the result of a trial. A network that overflows is a failed trial.

        A sampler that models losses is given the repaired policy instead of its own proposal, because the loss belongs
        to the repaired one.
        """
        if not np.isfinite(worse):
            study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr("levels", policy)
        repaired = dict(zip(distributions, policy, strict=True))
        if self.models_losses and repaired == parameters(distributions, policy):
            study.tell(trial, state=TrialState.FAIL)
            study.add_trial(create_trial(value=worse, params=repaired, distributions=dict(distributions)))
            return
        shares = [space.cost(policy, metric) / space.cost(space.dense, metric) for metric in self.metrics_of(space)]
        study.tell(trial, [worse, *shares])


def parameters(distributions: Distributions, levels: Levels) -> dict[str, Any]:
    """Levels as parameters of a trial, as near to them as the distributions allow."""
    named = zip(distributions.items(), levels, strict=True)
    return {name: int(np.clip(level, allowed.low, allowed.high)) for (name, allowed), level in named}
