"""What holds for every registered agent, on a toy with a known optimum."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from autoprune import registry
from autoprune.errors import LimitReached
from autoprune.objective import Limits, Objective
from autoprune.ports.agent import Agent, load_agent
from autoprune.testing import check_agent
from autoprune.testing.agents import gap, optimum
from autoprune.testing.toys import ToyScorer, toy_space

BASELINES = {"uniform", "random"}
AGENTS = registry.names("agents")
LEARNING = {name for name in AGENTS if load_agent(name).save is not Agent.save}
"""Agents whose gradient steps take their time: they get fewer tokens."""
SLOW = {"gp": 90, "tpe": 300}  # as are some samplers
TOKENS = {name: 32 * (140 if name in LEARNING else SLOW.get(name, 1200)) for name in AGENTS}
# Agents count in tokens of real text; the toy's sequences are 32 tokens, so their stages are scaled alike.
TOY = {"tokens": 64, "race_tokens": 128, "sensitivity_tokens": 32, "episodes": 4, "net_arch": (32,)}
SAMPLED = {"tokens": 64, "race_tokens": 128, "sensitivity_tokens": 32, "batch": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "random": {"tokens": 32 * 16},
    "greedy": {"tokens": 32 * 16},
    "evolution": {"first_tokens": 32 * 4, "sensitivity_tokens": 32},
    "evopress": {"stages": ((32, 4), (128, 1), (512, 1))},
    "ppo": TOY | {"epochs": 4},
    **dict.fromkeys(("policy-gradient", "nsga2", "tpe", "policy-gradient-masks"), SAMPLED),
    "gp": SAMPLED | {"startup": 8},
    "maskable-ppo": TOY | {"epochs": 4},
    **{name: TOY | {"gradient_steps": 8, "batch_size": 64} for name in ("dqn", "ddpg", "sac", "td3")},
    "purl": TOY | {"gradient_steps": 8, "batch_size": 64, "episodes": 1},
}


@pytest.mark.parametrize("agent", AGENTS)
def test_the_contract_of_agents(agent: str) -> None:
    if agent == "maskable-ppo":
        pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    check_agent(agent, OPTIONS.get(agent), TOKENS[agent], better_than_random=agent not in BASELINES)


def test_evolution_comes_close_to_the_optimum() -> None:
    gaps = []
    for toy in range(3):
        scorer = ToyScorer(toy_space(seed=toy), seed=toy)
        start = scorer.true_loss(scorer.space.uniform()) - optimum(toy)
        gaps.append(gap("evolution", OPTIONS["evolution"], TOKENS["evolution"], toy) / start)
    assert np.mean(gaps) < 0.1, gaps


def test_greedy_ends_within_few_tokens() -> None:
    space = toy_space()
    scorer = ToyScorer(space)
    objective = Objective(space, scorer, Limits(tokens=32 * (16 + 30 + 17)))
    with suppress(LimitReached):
        registry.load("agents", "greedy")().search(objective, np.random.default_rng(0))
    assert len(objective.archive()) == 2, "uniform, and where the walk ended"
    assert all(n == 16 for _, _, n in objective.archive())
