"""Policy gradients over levels: a probability for every level of every unit, learned by REINFORCE (Williams 1992).

The sampler is an Optuna sampler for any study (policy_gradient_sampler.py). Here it starts at the policy with the least
sum of single-unit sensitivities and prefers its neighbours.
"""

from dataclasses import dataclass
from typing import Literal

from optuna.samplers import BaseSampler
from pydantic import NonNegativeFloat

from autoprune.agents.policy_gradient_sampler import PolicyGradientSampler
from autoprune.agents.sampled import Distributions, SampledAgent, parameters
from autoprune.space import Levels

__all__ = ["PolicyGradient", "PolicyGradientSampler"]


@dataclass
class PolicyGradient(SampledAgent):
    """Args:
    learning_rate: learning rate of the logits; None is the sampler's default.
    baseline: the baseline of a trial's reward: `leave-one-out` or `moving-average`.
    natural: whether to follow the natural gradient.
    entropy: weight of the entropy bonus.
    strength: how much the initial logits fall with each squared level away from the reference.
    """

    learning_rate: NonNegativeFloat | None = None
    baseline: Literal["leave-one-out", "moving-average"] = "leave-one-out"
    natural: bool = True
    entropy: NonNegativeFloat = 0.0
    strength: NonNegativeFloat = 2.0

    def sampler(self, seed: int, distributions: Distributions, reference: Levels) -> BaseSampler:
        """Ours, with logits around the reference."""
        favoured = parameters(distributions, reference)
        initial = {
            name: [-self.strength * (level - favoured[name]) ** 2 for level in range(allowed.low, allowed.high + 1)]
            for name, allowed in distributions.items()
        }
        return PolicyGradientSampler(
            seed=seed, batch=self.batch, learning_rate=self.learning_rate, baseline=self.baseline,
            natural=self.natural, entropy=self.entropy, initial=initial, search_space=distributions,
        )  # fmt: skip
