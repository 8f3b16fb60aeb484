"""What holds for the environment: both checkers pass, and the budget holds whatever the actions."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from autoprune.envs.pruning import PruningEnv
from autoprune.objective import Limits, Objective
from tests.toys import ToyScorer, toy_space


def make_env(budget: float = 0.5) -> PruningEnv:
    space = toy_space(budget=budget)
    return PruningEnv(Objective(space, ToyScorer(space), Limits()), render_mode="ansi")


def test_the_checkers_of_gymnasium_and_sb3_pass() -> None:
    check_env(make_env(), skip_render_check=True)
    sb3_check_env(make_env())


@pytest.mark.parametrize("budget", [0.02, 0.3, 0.9])
def test_the_budget_holds_whatever_the_actions(budget: float) -> None:
    env = make_env(budget)
    rng = np.random.default_rng(0)
    for episode in range(20):
        observation, _ = env.reset(seed=episode)
        terminated = False
        while not terminated:
            assert env.observation_space.contains(observation)
            action = np.int64(0 if episode == 0 else rng.integers(env.action_space.n))
            allowed = env.action_masks()[action]
            observation, reward, terminated, _, info = env.step(action)
            assert not allowed or env.levels[-1] == action
        assert env.objective.space.feasible(info["levels"])
        assert reward == -info["loss"] == pytest.approx(-env.objective.loss(info["levels"])[0])
    assert env.render().count("\n") == len(env.objective.space.units) - 1


def test_an_action_outside_the_space_is_refused() -> None:
    env = make_env()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        env.step(np.int64(99))
