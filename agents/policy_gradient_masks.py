"""Policy-gradient masks: a probability for every group (KV groups of an attention), learned from forward passes alone.

This is Gao et al. 2024 ("Bypass Back-propagation") with three changes for searches of a few hundred evaluations:

- It starts from the criterion's order and from single-unit sensitivities. A group's logit falls with its rank in its
  unit and is 0 where the additive solution would cut. Only groups near the cut are uncertain.
- Besides the logits of its groups, a unit has a common Gaussian offset, which is learned, too. A few scores suffice to
  learn how much of a unit to keep; which neurons to keep takes thousands.
- A batch of masks is scored on one sample. The baseline of a mask is the mean of the others (leave one out). The answer
  is an incumbent that is raced by the best masks and by the most likely one.

A mask is sampled as logits plus logistic noise, cut at the threshold at which the budgets hold (projection.py). Except
for the threshold, these are independent Bernoulli draws.

Groups that share weights, such as the query heads of a KV group, count as one here: a mask keeps all of them or none.

Shapes: G groups of all units, U units, N masks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from autoprune.agents.projection import Projection
from autoprune.agents.racing import Patience, begin
from autoprune.mask import Mask
from autoprune.objective import Objective
from autoprune.ports.agent import Agent
from autoprune.space import SearchSpace

Floats = NDArray[np.float64]


@dataclass
class PolicyGradientMasks(Agent):
    """Args:
    batch: masks sampled and scored together.
    tokens: size of the sample for the first batches, in tokens.
    learning_rate: of the groups' logits, in units of a batch's standardised advantages.
    unit_rate: of the units' offsets, likewise, in standard deviations of their noise.
    unit_noise: standard deviation of a unit's offset, as a share of its groups.
    softness: share of a unit's groups over which logits go from 0 to 1.
    race_tokens: size of the sample for races at the start, in tokens.
    widening: how far both samples grow by the end: 0 is not at all, 1 is the whole split, geometric in between.
    finalists: masks of each batch that race the incumbent, besides the most likely one.
    sensitivity_tokens: tokens for each sensitivity. With 0 none is measured, and the start is the uniform policy.
    """

    masks = True

    batch: PositiveInt = 8
    tokens: PositiveInt = 512
    learning_rate: NonNegativeFloat = 0.02
    unit_rate: NonNegativeFloat = 0.3
    unit_noise: NonNegativeFloat = 0.05
    softness: PositiveFloat = 0.02
    race_tokens: PositiveInt = 4096
    widening: NonNegativeFloat = 0.5
    finalists: NonNegativeInt = 3
    sensitivity_tokens: NonNegativeInt = 512

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Batches until the limits, or until masks are no more new."""
        space = objective.space
        incumbent, start, _ = begin(objective, rng, self)
        policy = MaskPolicy(space, space.kept(start), self.softness, self.unit_noise)
        incumbent.challenge([start, policy.mode()])
        patience = Patience(objective)
        while not patience.lost():
            drawn = [policy.sample(rng) for _ in range(self.batch)]
            sample = incumbent.draw(self.tokens)
            losses_N = objective.by_sequence([one.mask for one in drawn], sample).mean(axis=1)
            policy.learn(drawn, losses_N, self.learning_rate, self.unit_rate)
            best = [drawn[i].mask for i in np.argsort(losses_N, kind="stable")[: self.finalists]]
            incumbent.challenge([*best, policy.mode()], sample)


@dataclass(frozen=True)
class Drawn:
    """A sampled mask, and what its likelihood's gradient needs.

    Args:
        mask: within the budgets.
        score_G: kept minus its probability, of each group.
        noise_U: of the units' offsets, in standard deviations.
    """

    mask: Mask
    score_G: Floats
    noise_U: Floats


class MaskPolicy:
    """Bernoulli logits of all groups, and Gaussian offsets of the units.

    Args:
        space: with costs of single groups.
        kept: groups of each unit that stay at the start.
        softness: share of a unit's groups over which logits go from 0 to 1.
        unit_noise: standard deviation of a unit's offset, as a share of its groups.
    """

    def __init__(self, space: SearchSpace, kept: list[int], softness: float, unit_noise: float) -> None:
        self._project = Projection(space)
        self._unit_G = self._project.unit_G
        groups_U = np.array(space.groups)
        width_U = np.maximum(softness * groups_U, 0.5)
        position_G = np.concatenate([np.arange(groups) for groups in space.groups])
        self.logit_G: Floats = (np.array(kept)[self._unit_G] - position_G - 0.5) / width_U[self._unit_G]
        self.offset_U = np.zeros(len(space.units))
        self._noise_U = unit_noise * groups_U / width_U  # in logits

    def sample(self, rng: np.random.Generator) -> Drawn:
        """One mask within the budgets."""
        noise_U = rng.standard_normal(len(self.offset_U))
        logit_G = self._logits(noise_U)
        noisy_G = logit_G + rng.logistic(size=len(logit_G))
        kept_G, threshold = self._project(noisy_G)
        probability_G = 1 / (1 + np.exp(np.clip(threshold - logit_G, -50, 50)))
        return Drawn(self._project.pack(kept_G), kept_G - probability_G, noise_U)

    def mode(self) -> Mask:
        """The mask without noise."""
        return self._project.pack(self._project(self._logits(np.zeros(len(self.offset_U))))[0])

    def learn(self, drawn: list[Drawn], losses_N: Floats, learning_rate: float, unit_rate: float) -> None:
        """One step of REINFORCE down the losses, against the mean of the other masks of the batch."""
        losses_N = np.where(np.isfinite(losses_N), losses_N, np.nan)
        if len(drawn) < 2 or not np.isfinite(losses_N).any() or np.nanstd(losses_N) == 0:
            return
        losses_N = np.where(np.isnan(losses_N), np.nanmax(losses_N), losses_N)
        better_N = (losses_N.mean() - losses_N) / losses_N.std()
        scale = 1 / (len(drawn) - 1)  # of leaving one out
        for one, better in zip(drawn, better_N, strict=True):
            self.logit_G += learning_rate * scale * better * one.score_G
            self.offset_U += unit_rate * scale * better * one.noise_U

    def _logits(self, noise_U: Floats) -> Floats:
        shift_U = self._noise_U * (self.offset_U + noise_U)
        return self.logit_G + shift_U[self._unit_G]
