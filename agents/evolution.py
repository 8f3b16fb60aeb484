"""Evolution (default): level switches between any units, and offspring raced against their parent on common samples.

Takes the level switch and the growing stages of EvoPress (Sieberling et al. 2024), DarwinLM (Tang et al. 2025) and
Tyr-the-Pruner (Li et al. 2025), and changes what costs tokens:

- Offspring and parent are compared on the same sequences, pair by pair, so that the text's own variance cancels. The
  parent's losses are remembered, so it takes part for free.
- A race, not stages of fixed size: sequences are added by doubling, and an offspring leaves as soon as it is behind
  its parent, or in the worse half of what is left.
- The sample widens as the search goes on: first steps are large and need few tokens, and the answer must not be
  fitted to the few sequences that a fixed sample would have.
- Switches trade between units of any kind and cost; `space.repair` fills what a switch leaves of the budget.
"""

from dataclasses import dataclass

import numpy as np

from autoprune.objective import Objective
from autoprune.space import Levels


@dataclass(frozen=True)
class Evolution:
    """Args:
    offspring: of each generation.
    first_tokens: sample that a new parent must win on at the start; grows to the whole split.
    widen_until: share of the search after which the sample is the whole split.
    more_switches: chance of each further switch in one offspring.
    crossover: chance that an offspring mixes the parent with an earlier one.
    """

    offspring: int = 16
    first_tokens: int = 4096
    widen_until: float = 0.75
    more_switches: float = 0.4
    crossover: float = 0.1
    keep: float = 0.5
    forgive: float = 0.0

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Generations until the limits, or until the neighbourhood of the parent is exhausted."""
        parents = [objective.space.uniform()]
        seen = set(parents)
        misses = 0
        while misses < 50:
            sample = self._sample(objective, rng)
            objective.by_sequence([parents[-1]], sample)
            objective.declare(parents[-1])
            children = [c for c in self._children(objective, parents, rng) if c not in seen]
            misses = 0 if children else misses + 1
            seen.update(children)
            winner = race(objective, parents[-1], children, sample, self.keep, self.forgive)
            if winner is not None:
                parents.append(winner)
                objective.declare(winner)

    def _sample(self, objective: Objective, rng: np.random.Generator) -> list[int]:
        """This generation's sequences in racing order: the first n of the split, shuffled; n grows geometrically."""
        total = objective.n_sequences
        first = objective.sequences_for(self.first_tokens)
        share = min(1.0, objective.progress / self.widen_until)
        count = round(first * (total / first) ** share)
        return [int(s) for s in rng.permutation(count)]

    def _children(self, objective: Objective, parents: list[Levels], rng: np.random.Generator) -> list[Levels]:
        children: dict[Levels, None] = {}
        for _ in range(self.offspring):
            child = parents[-1]
            if len(parents) > 1 and rng.random() < self.crossover:
                earlier = parents[int(rng.integers(max(0, len(parents) - 9), len(parents) - 1))]
                child = objective.space.crossover(child, earlier, rng)
            switches = int(rng.geometric(1 - self.more_switches))
            children[objective.space.mutate(child, rng, switches)] = None
        return list(children)


def race(
    objective: Objective, parent: Levels, children: list[Levels], sample: list[int], keep: float, forgive: float
) -> Levels | None:
    """The child that beats the parent on the whole sample, or None.

    Rounds double the sequences seen. After each, children that are behind the parent by more than `forgive` standard
    errors of the paired difference leave, and of the rest a share `keep` goes on.
    """
    losses_S = objective.by_sequence([parent], sample)[0]
    seen = 1
    while children:
        behind_PS = objective.by_sequence(children, sample[:seen]) - losses_S[:seen]
        behind_P = behind_PS.mean(axis=1)
        ranked = np.argsort(behind_P, kind="stable")
        if seen == len(sample):
            best = int(ranked[0])
            return children[best] if behind_P[best] < 0 else None
        error_P = behind_PS.std(axis=1, ddof=1) / np.sqrt(seen) if seen > 1 else np.full(len(children), np.inf)
        with np.errstate(invalid="ignore"):
            alive = [int(i) for i in ranked if behind_P[i] < (forgive * error_P[i] if forgive else 0)]
        children = [children[i] for i in alive[: max(1, int(len(children) * keep))]]
        seen = min(2 * seen, len(sample))
    return None
