"""The argument of a reward, and the checks of a user's own rewards.

A reward is a function of a `RewardRecord` that returns a number; more is better. It is called at the end of each
episode. With the decorator `every_step` it is called after every step. The policy so far, with the remaining units
dense, is then scored each time, so dense rewards cost as many scores as there are units.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from autoprune.errors import UserError
from autoprune.ports.adapting import has_mark
from autoprune.space import Unit
from autoprune.usercode import call, located

Function = TypeVar("Function", bound=Callable[..., Any])

HIGHEST_LOSS = 100.0
"""The loss of a network that overflows, in nats, so that rewards stay finite."""

HIGHEST_REWARD = 1e30
"""The largest absolute reward. The sum over an episode must fit in float32, in which agents learn."""


@dataclass(frozen=True)
class RewardRecord:
    """One step of one episode. All losses are means over the episode's own sample, in nats per token.

    Args:
        step: how many units are set, from 1.
        steps: how many units there are; the episode ends when `step` reaches it.
        unit: the unit that was set.
        kept: share of it that was kept: the density of its level (autoprune/level.py).
        loss: loss of the policy so far, with the remaining units dense.
        previous_loss: loss of the policy one step before. At the first step, and for rewards without `every_step`, it
            is the dense network's.
        dense_loss: loss of the dense network; 0 for the loss `kl`.
        uniform_loss: loss of the uniform policy within the same budgets.
        costs: metric -> cost of the policy so far as a fraction of dense.
        budgets: metric -> its bound as a fraction of dense.
    """

    step: int
    steps: int
    unit: Unit
    kept: float
    loss: float
    previous_loss: float
    dense_loss: float
    uniform_loss: float
    costs: Mapping[str, float]
    budgets: Mapping[str, float]

    @property
    def done(self) -> bool:
        """Whether this was the last step."""
        return self.step == self.steps

    @property
    def quality(self) -> float:
        """A counterpart of accuracy for language models: the probability of the right tokens relative to dense, in (0,
        1].

        It is exp(-(loss - dense loss)): for `ce` the ratio of geometric mean probabilities, for `kl` its expectation
        under the dense network.
        """
        return math.exp(-max(0.0, self.loss - self.dense_loss))


Reward = Callable[[RewardRecord], float]


def every_step(reward: Function) -> Function:
    """Mark a reward that is paid at every step."""
    reward.every_step = True  # type: ignore[attr-defined]
    return reward


def pays_every_step(reward: Reward) -> bool:
    """Whether a reward is paid at every step."""
    return has_mark(reward, "every_step")


def pay(reward: Reward, record: RewardRecord) -> float:
    """The reward for one step.

    Raises:
        UserError: the function raised an exception or did not return one finite number. The message names the function
            and the line.
    """
    value = call("reward", reward, record)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        shape = getattr(value, "shape", None)
        seen = type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else f" ({value!r})")
        raise UserError(f"the reward {located(reward)} must return one number; it returned {seen}.")
    if not -HIGHEST_REWARD <= value <= HIGHEST_REWARD:  # NaN is refused too
        integer = isinstance(value, (int, np.integer))
        seen = f"an integer of {int(value).bit_length()} bits" if integer else str(float(value))
        raise UserError(
            f"the reward {located(reward)} returned {seen} at step {record.step} of {record.steps} (loss "
            f"{record.loss:.4g}, costs {dict(record.costs)}): it must be finite, and up to {HIGHEST_REWARD:g} in size."
        )
    return float(value)
