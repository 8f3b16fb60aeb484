"""PuRL: DQN on magnitude thresholds, rewarded at every step (Gupta et al. 2020).

As published, a step prunes one layer, and an action is a threshold on magnitudes in standard deviations of the layer's
weights. The reward is paid at every step, from the accuracy and the sparsity so far (envs/rewards/purl.py). DQN
bootstraps from the next value, explores less and less, and stops after about 55 episodes. A layer is a unit here, and
the levels of single weights are those of `--forms sparse`. Levels of other forms serve as well: the nearest density is
taken.

The paper has no budget: its reward asks for a sparsity. Here thresholds are free while an episode lasts, and the policy
at its end is repaired to the budgets (`SearchSpace.repair`) before it is scored. The last reward sees the loss of the
repaired policy and the cost of the one that was chosen, so that the agent learns to meet the budgets by itself.

Every step scores the policy so far, which is counted as any score: an episode costs as many scores as there are units.
With `reward=purl-end` only the end is scored.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from autoprune.agents.dqn import DQN
from autoprune.envs.episodes import Actions, EpisodeRules
from autoprune.envs.thresholds import THRESHOLDS
from autoprune.objective import Objective


def _ascending(thresholds: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in itertools.pairwise(thresholds)):
        raise ValueError("thresholds ascend")
    return thresholds


Thresholds = Annotated[tuple[NonNegativeFloat, ...], Field(min_length=2), AfterValidator(_ascending)]


@dataclass
class PuRL(DQN):
    """Args:
    thresholds: the actions, in standard deviations of a unit's weights.
    max_episodes: number of episodes after which the search ends, if the limits are not spent before.
    """

    actions: ClassVar[Actions] = "thresholds"

    reward: str = "purl"
    episodes: PositiveInt = 1
    finalists: NonNegativeInt = 1
    sensitivity_tokens: NonNegativeInt = 0
    returns: bool = False
    exploration: NonNegativeFloat = 1.0
    preference: NonNegativeFloat = 0.0
    thresholds: Thresholds = THRESHOLDS
    max_episodes: PositiveInt = 55

    def rules(self, rules: EpisodeRules) -> EpisodeRules:
        """Thresholds as actions."""
        return replace(rules, thresholds=tuple(self.thresholds))

    def progress(self, objective: Objective, ended: int) -> float:
        """The share of the episodes, or of the limits."""
        return min(1.0, max(objective.progress, ended / self.max_episodes))

    def is_over(self, ended: int) -> bool:
        """After so many episodes."""
        return ended >= self.max_episodes
