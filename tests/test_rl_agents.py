"""Agents that learn by reinforcement: they reach the optimum of a toy, they learn, and what they learned is kept."""

import functools
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from safetensors.torch import load_file
from stable_baselines3.common.callbacks import BaseCallback

from autoprune import registry
from autoprune.agents.sb3 import Sb3Agent
from autoprune.agents.training import Training
from autoprune.errors import LimitReached, UserError
from autoprune.objective import Limits, Objective
from autoprune.space import Levels
from tests.toys import ToyScorer, best_loss, toy_space

AGENTS = ("ppo", "maskable-ppo", "dqn", "ddpg", "sac", "td3")
OPTIONS: dict[str, Any] = {"tokens": 32, "race_tokens": 64, "sensitivity_tokens": 32, "net_arch": (32,)}
STEPS = 480  # of the environment: 48 episodes of 10 units


@functools.cache
def optimum(units: int) -> float:
    """The lowest loss on the toy without noise."""
    return best_loss(ToyScorer(toy_space(units=units), noise=0), restarts=3)


def part_of_the_way(scorer: ToyScorer, policy: Levels) -> float:
    """Return of a policy: 0 as uniform, 1 as the optimum."""
    uniform, best = scorer.true_loss(scorer.space.uniform()), optimum(len(scorer.space.units))
    return (uniform - scorer.true_loss(policy)) / (uniform - best)


class Stop(BaseCallback):
    """Ends training soon; as an agent's callback, which SB3 calls."""

    steps = 160

    def _on_step(self) -> bool:
        return self.num_timesteps < self.steps


class StopAfterSteps(Stop):
    """Ends training later."""

    steps = STEPS


def agent_of(name: str, **options: Any) -> Sb3Agent:
    if name == "maskable-ppo":
        pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    agent: Sb3Agent = registry.load("agents", name)(**OPTIONS | {"callback": "tests.test_rl_agents:Stop"} | options)
    return agent


def search(agent: Sb3Agent, seed: int, scorer: ToyScorer | None = None, evals: int | None = None) -> Objective:
    scorer = scorer or ToyScorer(toy_space(), noise=0)
    objective = Objective(scorer.space, scorer, Limits(evals=evals))
    with suppress(LimitReached):
        agent.search(objective, np.random.default_rng(seed))
    return objective


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Levels]]:
    """What the agent would choose without noise, after each batch of episodes."""
    chosen: list[Levels] = []
    ended = Training._ended

    def noted(self: Training, outcome: Any) -> None:
        ended(self, outcome)
        chosen.append(self._choice())

    monkeypatch.setattr(Training, "_ended", noted)
    return iter([chosen])


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_reaches_95_percent_of_the_optimal_return_within_480_steps(name: str) -> None:
    returns = []
    for seed in range(5):
        scorer = ToyScorer(toy_space(), noise=0)
        agent = agent_of(name, callback="tests.test_rl_agents:StopAfterSteps")
        objective = search(agent, seed, scorer)
        returns.append(part_of_the_way(scorer, objective.best))
    assert min(returns) >= 0.95, returns


@pytest.mark.parametrize(("name", "options"), [("ppo", {"log_std": -1.0}), ("maskable-ppo", {"spread": 1.0})])
def test_learns_from_nothing_but_rewards(name: str, options: dict[str, Any], choices: Iterator[list[Levels]]) -> None:
    chosen, returns = next(choices), []
    for seed in range(3):
        scorer = ToyScorer(toy_space(units=6), noise=0)
        options |= {"sensitivity_tokens": 0, "callback": "tests.test_rl_agents:StopAfterSteps"}
        search(agent_of(name, **options), seed, scorer)
        returns.append(part_of_the_way(scorer, chosen[-1]))
    assert np.mean(returns) > 0.25, returns


@pytest.mark.parametrize("name", AGENTS)
def test_what_was_learned_is_saved_equal_for_equal_seeds_and_read_back(name: str, tmp_path: Path) -> None:
    files = []
    for folder in ("one", "two"):
        agent = agent_of(name)
        search(agent, 3, evals=100)
        (tmp_path / folder).mkdir()
        agent.save(tmp_path / folder)
        files.append(load_file(tmp_path / folder / "agent.safetensors"))
    assert all(torch.equal(files[0][key], files[1][key]) for key in files[0] | files[1])
    again = agent_of(name, pretrained=str(tmp_path / "one"))
    training = object_of(again)
    for key, tensor in agent._trained.policy.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(training.model.policy.state_dict()[key], tensor), key


def object_of(agent: Sb3Agent) -> Training:
    """Training that has been made ready and not begun."""
    agent.decays = []
    scorer = ToyScorer(toy_space(), noise=0)
    return Training(agent, Objective(scorer.space, scorer, Limits()), np.random.default_rng(0))


def test_the_zip_is_stable_baselines3s_own(tmp_path: Path) -> None:
    agent = agent_of("ppo")
    search(agent, 0, evals=60)
    agent.save(tmp_path)
    loaded = stable_baselines3.PPO.load(tmp_path / "model.zip", device="cpu")
    observation = np.zeros(loaded.observation_space.shape, np.float32)
    trained = agent._trained
    assert trained is not None
    assert loaded.predict(observation, deterministic=True)[0] == trained.predict(observation, deterministic=True)[0]


def test_a_search_leaves_the_processs_randomness_as_it_was() -> None:
    def state() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index,union-attr]

    before = state()
    search(agent_of("dqn"), 0, evals=60)
    assert state() == before


def test_a_callback_is_called_and_tensorboard_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    (tmp_path / "mine.py").write_text(
        "from stable_baselines3.common.callbacks import BaseCallback\n"
        "steps, ends = [], []\n"
        "class Count(BaseCallback):\n"
        "    def _on_step(self):\n        steps.append(self.num_timesteps)\n        return True\n"
        "    def _on_training_end(self):\n        ends.append(True)\n"
    )
    callback = f"{tmp_path / 'mine.py'}:"
    search(agent_of("ppo", callback=f"{callback}Count", tensorboard=str(tmp_path / "logs")), 0, evals=60)
    assert registry.load("callbacks", f"{callback}steps")
    assert registry.load("callbacks", f"{callback}ends") == [True]
    assert list((tmp_path / "logs").rglob("events.out.tfevents*"))


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    agent = agent_of("ppo")
    search(agent, 0, evals=60)
    agent.save(tmp_path)
    with pytest.raises(UserError, match=r"does not fit: .* is .* there and .* here"):
        object_of(agent_of("ppo", net_arch=(8,), pretrained=str(tmp_path)))
