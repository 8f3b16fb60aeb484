"""Evolution (default): level switches between any units, and offspring raced against their parent on common samples.

Takes the level switch and the growing stages of EvoPress (Sieberling et al. 2024), DarwinLM (Tang et al. 2025) and
Tyr-the-Pruner (Li et al. 2025), and changes what costs tokens:

- Offspring and parent are compared on the same sequences, pair by pair, so that the text's own variance cancels. The
  parent's losses are remembered, so it takes part for free.
- A race, not stages of fixed size: sequences are added by doubling, and an offspring leaves as soon as it is behind
  its parent, or in the worse half of what is left.
- The sample is drawn anew for each generation and widens as the search goes on: first steps are large and need few
  tokens, and the answer must not be fitted to the few sequences that a fixed sample would have.
- Switches trade between units of any kind and cost; `space.repair` fills what a switch leaves of the budget.
- It begins by climbing: derivatives tell what other levels of every unit would do, for all units at the price of a few
  passes; the policy that is best under them, and some on the way there, race the uniform one; from the winner again,
  while that leads somewhere. Where there are no derivatives, single-unit sensitivities take their place.
- Every comparison teaches an additive model, which begins with these, and of a dozen switches only the one that it
  likes best is scored.
- Half of the generations differ from their parent only behind some block, since what is before it is known.
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
class Evolution(Agent):
    """Defaults were chosen by `benchmarks/tournament.py` (docs/decisions/ has what was tried).

    Args:
        offspring: of each generation.
        first_tokens: the sample that a new parent must win on at the start.
        widening: how far the sample grows by the end of the search: 0 not at all, 1 to the whole split, in between
            geometrically.
        more_switches: chance of each further switch in one offspring.
        screened: mutants for each offspring, of which the model chooses one; 1 does without it.
        sensitivity_tokens: for each sensitivity; 0 measures none.
        slope_sequences: that slopes are taken on; 0 takes none.
        points: levels of each unit whose sensitivity is measured; fewer where that takes too much of the limits.
        deep: chance of a generation that differs from its parent only from a random unit on. What is before it is not
            computed again (evaluation/walk.py).
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
        """Generations until the limits, or until no new offspring are found."""
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
            parent = race(objective, parent, children, sample, partial(model.learn, parent)) or parent
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
