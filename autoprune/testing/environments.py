"""What holds for every environment and every reward: `check_env`, `check_reward`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from autoprune.envs.rewards.options import load_reward
from autoprune.envs.rewards.record import HIGHEST_LOSS, Reward, RewardRecord, pay
from autoprune.testing.toys import toy_space


def check_env(make: Callable[[], gymnasium.Env[Any, Any]], episodes: int = 5) -> None:
    """All of the contract of an environment.

    Args:
        make: makes one, as `lambda: autoprune.make_env(model=..., reward=...)`.
        episodes: of random actions that are played.

    Raises:
        AssertionError: something does not hold; or what the checkers of Gymnasium and stable-baselines3 raise.
    """
    from gymnasium.utils.env_checker import check_env as gymnasium_check
    from stable_baselines3.common.env_checker import check_env as sb3_check

    gymnasium_check(make().unwrapped, skip_render_check=True)
    sb3_check(make())
    first, second = (play(make(), seed=3) for _ in range(2))
    assert first == second, "two episodes of one seed and the same actions differ"
    for seed in range(episodes):
        play(make(), seed)


def play(env: gymnasium.Env[Any, Any], seed: int) -> list[tuple[Any, ...]]:
    """One episode of random actions, every step of it checked: observations, rewards and the policy at the end."""
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    steps: list[tuple[Any, ...]] = []
    terminated, info = False, dict[str, Any]()
    while not terminated:
        assert env.observation_space.contains(observation), "an observation is outside of its space"
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert not truncated, "an episode was cut off"
        assert math.isfinite(reward), f"the reward {reward} is not finite"
        steps.append((_flat(observation).tobytes(), float(reward)))
    space = env.unwrapped.rules.objective.space  # type: ignore[attr-defined]
    assert space.feasible(info["levels"]), f"the policy {info['levels']} is over a budget"
    return [*steps, (info["levels"], info["loss"])]


def check_reward(
    reward: str | Reward, draws: int = 300, seed: int = 0, options: Mapping[str, Any] | None = None
) -> None:
    """All of the contract of a reward.

    Args:
        reward: its name, `package.module:function` or `file.py:function`, or the function.
        draws: random steps of random episodes that it is asked about.
        seed: of these.
        options: options of the reward, by name; the others keep their defaults.

    Raises:
        AssertionError: something does not hold.
        UserError: an option is wrong, or the reward raises an exception, or returns anything but one finite number.
    """
    function = load_reward(reward, options)
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        record = drawn_record(rng)
        value = pay(function, record)
        better = replace(record, loss=record.loss * rng.uniform())
        paid = pay(function, better)
        assert paid >= value, f"a loss of {better.loss:.4g} pays {paid:.4g}, the worse {record.loss:.4g} {value:.4g}"
        assert pay(function, record) == value, "the same step pays differently the second time"


def drawn_record(rng: np.random.Generator) -> RewardRecord:
    """Any step of any episode; losses are up to those of a network that overflows."""
    steps = int(rng.integers(1, 100))
    metrics = ["params", "energy"][: int(rng.integers(1, 3))]
    loss, previous, uniform = (float(10 ** rng.uniform(-4, np.log10(HIGHEST_LOSS))) for _ in range(3))
    return RewardRecord(
        step=int(rng.integers(1, steps + 1)),
        steps=steps,
        unit=toy_space(units=1).units[0],
        kept=float(rng.uniform()),
        loss=loss,
        previous_loss=previous,
        dense_loss=float(rng.choice([0.0, rng.uniform(0, 20)])),
        uniform_loss=uniform,
        costs={metric: float(rng.uniform()) for metric in metrics},
        budgets={metric: float(rng.uniform(0.001, 1.5)) for metric in metrics},
    )


def _flat(observation: Any) -> Any:
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return np.concatenate([np.ravel(part) for part in parts])
