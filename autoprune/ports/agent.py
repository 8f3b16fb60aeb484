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
    """A search algorithm: a class with one method. It is usually a dataclass, whose fields are its settings.

    The contract tests check every registered agent. Only feasible policies are scored as candidates. All randomness
    comes from `rng`, so that two runs with one seed are equal and a resumed run ends like an uninterrupted one. At
    equal tokens the agent is better than `random` on a toy with a known optimum, unless it is a baseline.
    """

    masks: ClassVar[bool] = False
    """Whether the agent also proposes masks, which keep or remove single groups."""

    alone: ClassVar[bool] = False
    """Whether the agent seeds random generators of the whole process. Then no other agent may run beside it."""

    pareto: ClassVar[bool] = False
    """Whether the agent trades the loss against the budgeted costs. The run's study then has one objective for each."""

    @abstractmethod
    def search(self, objective: "Objective", rng: "np.random.Generator") -> None:
        """Propose policies to `objective` until it raises `LimitReached` or there is nothing left to try."""

    def front(self, objective: "Objective") -> Sequence["Proposal"]:
        """Policies to measure and save besides the best one at the end of the search. The default is none."""
        return ()

    def save(self, directory: Path) -> None:
        """Write what the agent has learned to the run's directory at the end of the search. The default writes nothing.

        Raises:
            UserError: the disk is full or not writable.
        """
        return None


def load_agent(name: str) -> type[Agent]:
    """The agent called `name`. It may be a user's class with a method `search`.

    Raises:
        UserError: it does not exist, cannot be imported, or has no such method.
    """
    found: type[Agent] = part_class(Agent, "agents", name)
    return found
