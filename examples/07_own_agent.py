"""An agent of one's own: simulated annealing, in one method.

    python examples/07_own_agent.py

An agent proposes policies and gets their losses; it never sees the network. `objective.space` samples, mutates and
repairs policies, so whatever is proposed is within the budgets. Limits, the journal, `resume` and the final table come
with the objective. All randomness is taken from `rng`, because a run is resumed by replaying it. The command line does
the same: `autoprune search --agent examples/07_own_agent.py:Annealing agent_options.cooling=0.9`.

Expect, in about a minute, what the contract of every agent says of it (autoprune.testing), and a loss below uniform's.
"""

import argparse
from dataclasses import dataclass

import numpy as np

import autoprune
from autoprune.extend import Agent, Objective
from autoprune.testing import check_agent


@dataclass
class Annealing(Agent):
    """Simulated annealing (Kirkpatrick et al. 1983): a worse neighbour is taken with a chance that falls.

    Args:
        start: of the temperature, in nats.
        cooling: what the temperature is multiplied with after every neighbour.
        tokens: that a policy is scored on.
    """

    start: float = 0.1
    cooling: float = 0.98
    tokens: int = 512

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Walk from neighbour to neighbour until the limits are spent, which raises `LimitReached`."""
        current, temperature = objective.space.uniform(), self.start
        while True:
            neighbour = objective.space.mutate(current, rng)
            now, then = objective([current, neighbour], tokens=self.tokens)  # on the same tokens; what is known is free
            if then < now or rng.random() < np.exp((now - then) / temperature):
                current = neighbour
            temperature *= self.cooling


def main() -> None:
    """Check the agent on a toy whose optimum is known, and search with it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=80_000, help="policies x tokens scored")
    arguments = parser.parse_args()
    check_agent(Annealing, {"tokens": 256})
    print("the contract of agents holds")
    result = autoprune.search(
        agent=f"{__file__}:Annealing",
        budgets={"params": 0.5},
        max_tokens=arguments.tokens,
        sequence_length=128, reconstruction_sequences=64, search_sequences=32, validation_sequences=32,
    )  # fmt: skip
    for row in result.table:
        print(f"{row.name:>8}: loss {row.validation_loss:.4f}, {row.params:,} parameters")


if __name__ == "__main__":  # the search imports this file to find the agent
    main()
