"""The port of an agent: a search algorithm."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from autoprune.ports.adapting import part_class

if TYPE_CHECKING:
    import numpy as np

    from autoprune.objective import Objective
    from autoprune.space import Proposal


class Agent(ABC):
    """A search algorithm: best a dataclass, whose fields are its settings, with one method.

    The contract tests ask of every registered agent: only feasible policies are scored as candidates; all randomness
    comes from `rng`, so that two runs of one seed are equal, and a killed run, replayed, goes on as if it had not been
    interrupted; the agent is better than `random` at equal tokens on a toy with a known optimum (baselines excepted).
    """

    masks: ClassVar[bool] = False
    """Whether it proposes masks, which keep or remove single groups, besides levels."""

    alone: ClassVar[bool] = False
    """Whether it seeds generators of the whole process, so that no other agent may search beside it."""

    pareto: ClassVar[bool] = False
    """Whether it trades the loss against the budgeted costs. The run's study then has an objective for each."""

    @abstractmethod
    def search(self, objective: "Objective", rng: "np.random.Generator") -> None:
        """Propose policies to `objective` until it raises `LimitReached` or there is nothing left to try."""

    def front(self, objective: "Objective") -> Sequence["Proposal"]:
        """Policies to be measured and saved besides the best one, when the search has ended; by default none."""
        return ()

    def save(self, directory: Path) -> None:
        """Write what the agent has learned to the run's directory, when the search has ended; by default nothing.

        Raises:
            UserError: the disk is full or not writable.
        """
        return None


def load_agent(name: str) -> type[Agent]:
    """The agent called `name`. A class of the user's that has a method `search` is one, too.

    Raises:
        UserError: there is none, it cannot be imported, or it has no such method.
    """
    found: type[Agent] = part_class(Agent, "agents", name)
    return found
