"""Evolution (default): level switches between any units, and offspring raced against their parent on common samples.

It uses the level switch and the growing stages of EvoPress (Sieberling et al. 2024), DarwinLM (Tang et al. 2025) and
Tyr-the-Pruner (Li et al. 2025). The following changes save tokens:

- Offspring and parent are compared on the same sequences, so that the variance of the text cancels. The parent's losses
  are known, so its part in the comparison costs nothing.
- A race replaces stages of fixed size. The number of sequences doubles in each round. An offspring leaves as soon as it
  is worse than its parent or in the worse half of the others.
- Each generation draws a new sample, which grows during the search. The first steps are large and need few tokens. A
  fixed small sample would be overfitted.
- Switches trade between units of any kind and cost. `space.repair` then fills what is left of the budget.
- It begins with steps along slopes. Derivatives estimate the effect of other levels for all units at the cost of a few
  passes. The best policy under these estimates, and some on the way to it, race the uniform policy. The winner is the
  start of the next step, as long as steps improve. Without derivatives, single-unit sensitivities are used instead.
- An additive model learns from every comparison. It begins with the slopes or sensitivities. Of a dozen switches only
  the best one under the model is scored.
- With `train_tokens`, the best offspring of later generations are trained a little before they are compared with each
  other and with their parent, because what ranks first before training need not do so after it.
- Half of the generations change only blocks after a random one, because the states before it are known.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from autoprune.agents.additive_model import AdditiveModel, added, guess
from autoprune.agents.increments import Increments
from autoprune.agents.racing import PATIENCE, race
from autoprune.agents.training_stages import TrainsCandidates, finalists, shortlist
from autoprune.envs import sensitivity
from autoprune.objective import Objective
from autoprune.ports.agent import Agent
from autoprune.space import Levels

Floats = NDArray[np.float64]

MEASURING = 0.25  # share of the limits, at most, for sensitivities, or for the slopes of one step
CLIMBING = 0.5  # share of the limits after which no more such steps are taken
CAUTIONS = (2.0, 3.0)  # times what sparser levels would do: many of them at once do more than their sum
SHARES = (0.3, 0.5)  # of the changes that the slopes suggest, for policies on the way
WIDER = 1.4  # growth of the sample from one such step to the next, since steps grow shorter
TRIES = 2  # steps that lead nowhere, after which no more are taken


@dataclass(frozen=True)
class Evolution(TrainsCandidates, Agent):
    """Defaults were chosen by `benchmarks/compare_agents.py` (docs/decisions/ has what was tried).

    Settings of training candidates are those of `TrainsCandidates` (training_stages.py).

    Args:
        offspring: number of offspring in each generation.
        first_tokens: size of the sample for comparisons at the start, in tokens.
        widening: how far the sample grows by the end of the search: 0 is not at all, 1 is the whole split, and values
            between are geometric.
        more_switches: probability of each further switch in one offspring.
        screened: number of mutants from which the model chooses each offspring. With 1 the model is not used.
        sensitivity_tokens: tokens for each sensitivity; 0 measures none.
        slope_sequences: number of sequences for slopes; 0 takes none.
        points: number of levels of each unit whose sensitivity is measured. It is less where the limits require it.
        deep: probability that a generation changes only units after a random one. The blocks before are not computed
            again (evaluation/prefix_runner.py).
    """

    offspring: int = 6
    first_tokens: int = 4096
    widening: float = 0.5
    more_switches: float = 0.5
    screened: PositiveInt = 16
    sensitivity_tokens: NonNegativeInt = 512
    slope_sequences: NonNegativeInt = 1
    points: PositiveInt = 1
    deep: Annotated[float, Field(ge=0, le=1)] = 0.5

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Run generations until the limits are spent or no new offspring are found."""
        stages = self.training_stages(objective)
        parent = objective.space.uniform()
        objective.by_sequence([parent], [0])
        objective.declare(parent)
        parent, climbed_UL = self._climb(objective, parent, rng)
        children: list[Levels] = []
        if climbed_UL is not None:
            model = AdditiveModel(climbed_UL)
        elif (measured_UL := self._sensitivities(objective)) is not None:
            children = [sensitivity.additive_solution(objective.space, measured_UL)]
            model = AdditiveModel(measured_UL)
        else:
            sample = list(range(objective.sequences_for(self.first_tokens)))
            behind_S = objective.by_sequence([parent], sample)[0] - objective.dense_losses(sample)
            model = AdditiveModel(guess(objective.space, parent, float(behind_S.mean())))
        seen, misses = {parent, *children}, 0
        while misses < PATIENCE:
            sample = self._sample(objective, rng)
            tell = partial(model.learn, parent)
            if stages and self.trains_now(objective):
                if not stages.affordable(objective, len(children) + 2 * self.trained, len(sample)):
                    if objective.spent.training:
                        return  # a comparison without training would undo those with it
                    self.tell_too_little()
                    stages = None
                    continue
                known = finalists(objective, 2 * self.trained) if not objective.spent.training else []
                rivals = shortlist(objective, parent, [*children, *known], sample, self.trained, tell)
                chosen = stages.choose(objective, parent, rivals, sample)
                if chosen is None:
                    self.tell_diverged()
                    stages = None
                    continue
                parent = chosen
            else:
                parent = race(objective, parent, children, sample, tell) or parent
            objective.declare(parent)
            children = self._children(objective, parent, model, seen, rng)
            misses = 0 if children else misses + 1
            seen.update(children)

    def _climb(self, objective: Objective, parent: Levels, rng: np.random.Generator) -> tuple[Levels, Floats | None]:
        """From policy to policy along slopes, while they lead to better ones: the last, and what each level adds."""
        known, steps, misses = Increments(objective.space), 0, 0
        count = min(objective.n_sequences, self.slope_sequences)
        while misses < TRIES and self._affordable(objective, count):
            taken = [int(s) for s in rng.permutation(objective.n_sequences)[:count]]
            slopes_UL = objective.slopes(parent, taken)
            if slopes_UL is None:
                break
            known.add(slopes_UL, count)
            ways = self._ways(objective, parent, known.around(parent), rng)
            size = round(objective.sequences_for(self.first_tokens // 2) * WIDER**steps)
            sample = [int(s) for s in rng.permutation(objective.n_sequences)[:size]]
            winner = race(objective, parent, ways, sample)
            parent, steps, misses = winner or parent, steps + 1, misses + (winner is None)
            objective.declare(parent)
        return parent, known.table() if steps else None

    def _affordable(self, objective: Objective, sequences: int) -> bool:
        """Whether slopes leave the limits to what follows."""
        passes, limits = objective.slope_passes * sequences, objective.limits
        tokens = passes * objective.tokens_per_sequence
        return (
            passes > 0
            and objective.progress <= CLIMBING
            and (limits.evals is None or passes <= MEASURING * limits.evals)
            and (limits.tokens is None or tokens <= MEASURING * limits.tokens)
        )

    def _ways(self, objective: Objective, parent: Levels, slopes_UL: Floats, rng: np.random.Generator) -> list[Levels]:
        """Policies that are best under the slopes, with more and less caution, and some that take part of that."""
        sparser_UL = np.arange(slopes_UL.shape[1]) > np.array(parent)[:, None]
        ways = []
        for caution in CAUTIONS:
            added_UL = np.where(np.isnan(slopes_UL), np.inf, slopes_UL * np.where(sparser_UL, caution, 1.0))
            ways.append(sensitivity.additive_solution(objective.space, added_UL))
        for share in SHARES:
            taken = [b if rng.random() < share else p for b, p in zip(ways[0], parent, strict=True)]
            ways.append(objective.space.repair(tuple(taken), rng))
        return [way for way in dict.fromkeys(ways) if way != parent]

    def _sensitivities(self, objective: Objective) -> Floats | None:
        """Of as many levels of each unit as are affordable, from which the others are interpolated."""
        for points in range(self.points, 0, -1):
            added_UL = sensitivity.measure_if_affordable(objective, self.sensitivity_tokens, points, MEASURING)
            if added_UL is not None:
                return added_UL
        return None

    def _sample(self, objective: Objective, rng: np.random.Generator) -> list[int]:
        """This generation's sequences in racing order: the first n of the split, shuffled; n grows geometrically."""
        first = objective.sequences_for(self.first_tokens)
        growth = (objective.n_sequences / first) ** (self.widening * objective.progress)
        return [int(s) for s in rng.permutation(round(first * growth))]

    def _children(
        self, objective: Objective, parent: Levels, model: AdditiveModel, seen: set[Levels], rng: np.random.Generator
    ) -> list[Levels]:
        """New mutants of the parent, each the best of a few under a table of its own from the model."""
        children: list[Levels] = []
        first = int(rng.integers(max(1, len(parent) - 1))) if rng.random() < self.deep else 0
        for added_UL in model.draw(rng, self.offspring):
            switches = rng.geometric(1 - self.more_switches, size=self.screened)
            mutants = dict.fromkeys(objective.space.mutate(parent, rng, int(n), first) for n in switches)
            new = [mutant for mutant in mutants if mutant not in seen and mutant not in children]
            if new:
                children.append(new[int(added(added_UL, new).argmin())])
        return children
