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
- Every comparison teaches an additive model, and of a dozen switches only the one that it likes best is scored. It
  begins with single-unit sensitivities, and the policy that is best under them is the first to race the uniform one.
- Half of the generations differ from their parent only behind some block, since what is before it is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from autoprune.agents.additive_model import AdditiveModel, added, guess
from autoprune.agents.racing import PATIENCE, race
from autoprune.envs import sensitivity
from autoprune.objective import Objective
from autoprune.space import Levels

Floats = NDArray[np.float64]

MEASURING = 0.25  # share of the limits, at most, for sensitivities


@dataclass(frozen=True)
class Evolution:
    """Defaults were chosen by `benchmarks/tournament.py` (docs/decisions.md has what was tried).

    Args:
        offspring: of each generation.
        first_tokens: the sample that a new parent must win on at the start.
        widening: how far the sample grows by the end of the search: 0 not at all, 1 to the whole split, in between
            geometrically.
        more_switches: chance of each further switch in one offspring.
        screened: mutants for each offspring, of which the model chooses one; 1 does without it.
        sensitivity_tokens: for each sensitivity; 0 measures none.
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
    points: PositiveInt = 1
    deep: Annotated[float, Field(ge=0, le=1)] = 0.5

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Generations until the limits, or until no new offspring are found."""
        parent = objective.space.uniform()
        sample: Sequence[int] = range(objective.sequences_for(self.first_tokens))
        behind_S = objective.by_sequence([parent], sample)[0] - objective.dense_losses(sample)
        objective.declare(parent)
        added_UL, children = self._sensitivities(objective), list[Levels]()
        if added_UL is None:
            added_UL = guess(objective.space, parent, float(behind_S.mean()))
        else:
            children = [sensitivity.additive_solution(objective.space, added_UL)]
        model = AdditiveModel(added_UL)
        seen, misses = {parent, *children}, 0
        while misses < PATIENCE:
            sample = self._sample(objective, rng)
            objective.by_sequence([parent], sample)
            objective.declare(parent)
            parent = race(objective, parent, children, sample, partial(model.learn, parent)) or parent
            objective.declare(parent)
            children = self._children(objective, parent, model, seen, rng)
            misses = 0 if children else misses + 1
            seen.update(children)

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
