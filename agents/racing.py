"""Races on common samples and the incumbent: how agents choose between policies with few tokens.

Rivals are compared on the same sequences, so that the variance of the text cancels. The incumbent's losses are known,
so its part in a race costs nothing. Samples are drawn anew and grow during the search: the first steps are large and
need few tokens, and a fixed small sample would be overfitted.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoprune.envs import sensitivity
from autoprune.objective import Objective
from autoprune.space import Levels, Proposal

Rival = TypeVar("Rival", bound=Proposal)
PATIENCE = 50


def race(
    objective: Objective,
    incumbent: Rival,
    rivals: Sequence[Rival],
    sample: Sequence[int],
    tell: Callable[[Rival, NDArray[np.float64]], None] = lambda _rival, _behind_S: None,
) -> Rival | None:
    """The rival that beats the incumbent on the whole sample, or None.

    Rounds double the sequences seen. After each, rivals behind the incumbent leave, and so does the worse half.

    Args:
        tell: called with each rival when it leaves or finishes, and with its loss minus the incumbent's on each
            sequence seen.
    """
    seen, left = 1, list(rivals)
    while left:
        losses_PS = objective.by_sequence([incumbent, *left], sample[:seen])
        behind_PS = losses_PS[1:] - losses_PS[0]
        behind_P = behind_PS.mean(axis=1)
        ranked = [int(i) for i in np.argsort(behind_P, kind="stable") if behind_P[i] < 0]
        stay = ranked[: max(1, len(left) // 2)] if seen < len(sample) else []
        for i in sorted(set(range(len(left))) - set(stay)):
            tell(left[i], behind_PS[i])
        if seen == len(sample):
            return left[ranked[0]] if ranked else None
        left = [left[i] for i in stay]
        seen = min(2 * seen, len(sample))
    return None


class Patience:
    """Detects that an agent proposes nothing new any more.

    Args:
        objective: counts what is new.
        batches: number of batches that are watched. The search is over when they had fewer new scores than batches.
    """

    def __init__(self, objective: Objective, batches: int = PATIENCE) -> None:
        self._objective, self._batches = objective, batches
        self._evals: deque[int] = deque(maxlen=batches)

    def lost(self) -> bool:
        """Whether the search is over. Call it once in each batch."""
        evals = self._objective.spent.evals
        if len(self._evals) == self._batches and evals - self._evals[0] < self._batches:
            return True
        self._evals.append(evals)
        return False


class Incumbent:
    """The best policy so far of an agent that proposes in batches, and the samples of its races.

    Args:
        objective: scores policies.
        rng: draws the samples.
        policy: what to begin with.
        race_tokens: size of the sample for races at the start, in tokens.
        widening: how far samples grow by the end: 0 not at all, 1 to the whole split, geometrically in between.
    """

    def __init__(
        self, objective: Objective, rng: np.random.Generator, policy: Proposal, race_tokens: int, widening: float
    ) -> None:
        self.objective, self.policy = objective, policy
        self._rng, self._race_tokens, self._widening = rng, race_tokens, widening

    def draw(self, tokens: int) -> list[int]:
        """Sequences in random order; their number grows geometrically with what is spent."""
        first = self.objective.sequences_for(tokens)
        growth = (self.objective.n_sequences / first) ** (self._widening * self.objective.progress)
        return [int(s) for s in self._rng.permutation(self.objective.n_sequences)[: round(first * growth)]]

    def challenge(self, rivals: Sequence[Proposal], seen: Sequence[int] = ()) -> None:
        """Let rivals race the incumbent on a sample that begins with the sequences that they were scored on."""
        drawn = self.draw(self._race_tokens)
        sample = list(dict.fromkeys([*seen, *drawn]))[: max(len(seen), len(drawn))]
        self.objective.by_sequence([self.policy], sample)
        self.objective.declare(self.policy)
        others = [rival for rival in dict.fromkeys(rivals) if rival != self.policy]
        self.policy = race(self.objective, self.policy, others, sample) or self.policy
        self.objective.declare(self.policy)


class Races(Protocol):
    """The common settings of agents that propose in batches and race an incumbent."""

    tokens: int
    race_tokens: int
    widening: float
    sensitivity_tokens: int


def begin(
    objective: Objective, rng: np.random.Generator, settings: Races
) -> tuple[Incumbent, Levels, NDArray[np.float64] | None]:
    """Prepare the first batch: declare a first answer, and measure sensitivities if they are affordable.

    Returns:
        The incumbent (the uniform policy); the reference, which has the least sum of sensitivities or is uniform
        without them; and the sensitivities, `[U, L]`.

    Raises:
        LimitReached: the limits are spent.
    """
    uniform = objective.space.uniform()
    objective([uniform], settings.tokens)
    objective.declare(uniform)
    incumbent = Incumbent(objective, rng, uniform, settings.race_tokens, settings.widening)
    added_UL = sensitivity.measure_if_affordable(objective, settings.sensitivity_tokens)
    reference = uniform if added_UL is None else sensitivity.additive_solution(objective.space, added_UL)
    return incumbent, reference, added_UL
