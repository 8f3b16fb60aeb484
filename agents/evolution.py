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
"""

from dataclasses import dataclass

import numpy as np

from autoprune.agents.racing import race
from autoprune.objective import Objective
from autoprune.space import Levels


@dataclass(frozen=True)
class Evolution:
    """Defaults were chosen by `benchmarks/tournament.py` (docs/decisions.md has what was tried).

    Args:
        offspring: of each generation.
        first_tokens: the sample that a new parent must win on at the start.
        widening: how far the sample grows by the end of the search: 0 not at all, 1 to the whole split, in between
            geometrically.
        more_switches: chance of each further switch in one offspring.
    """

    offspring: int = 6
    first_tokens: int = 4096
    widening: float = 0.5
    more_switches: float = 0.5

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Generations until the limits, or until no new offspring are found."""
        parent = objective.space.uniform()
        seen, misses = {parent}, 0
        while misses < 50:
            sample = self._sample(objective, rng)
            objective.by_sequence([parent], sample)
            objective.declare(parent)
            children = [child for child in self._children(objective, parent, rng) if child not in seen]
            misses = 0 if children else misses + 1
            seen.update(children)
            parent = race(objective, parent, children, sample) or parent
            objective.declare(parent)

    def _sample(self, objective: Objective, rng: np.random.Generator) -> list[int]:
        """This generation's sequences in racing order: the first n of the split, shuffled; n grows geometrically."""
        first = objective.sequences_for(self.first_tokens)
        growth = (objective.n_sequences / first) ** (self.widening * objective.progress)
        return [int(s) for s in rng.permutation(round(first * growth))]

    def _children(self, objective: Objective, parent: Levels, rng: np.random.Generator) -> list[Levels]:
        switches = rng.geometric(1 - self.more_switches, size=self.offspring)
        return list(dict.fromkeys(objective.space.mutate(parent, rng, int(n)) for n in switches))
