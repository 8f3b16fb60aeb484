"""What holds for every registered agent, on a toy with a known optimum."""

import functools
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from autoprune import registry
from autoprune.errors import LimitReached
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.ports.agent import Agent, load_agent
from tests.toys import ToyScorer, best_loss, toy_space

BASELINES = {"uniform", "random"}
AGENTS = registry.names("agents")
LEARNING = {"ppo", "maskable-ppo", "dqn", "ddpg", "sac", "td3"}  # gradient steps take their time: fewer tokens
SLOW = {"gp": 90, "tpe": 300}  # as are some samplers
TOKENS = {name: 32 * (140 if name in LEARNING else SLOW.get(name, 1200)) for name in AGENTS}
# Agents count in tokens of real text; the toy's sequences are 32 tokens, so their stages are scaled alike.
TOY = {"tokens": 64, "race_tokens": 128, "sensitivity_tokens": 32, "episodes": 4, "net_arch": (32,)}
SAMPLED = {"tokens": 64, "race_tokens": 128, "sensitivity_tokens": 32, "batch": 4}
OPTIONS = {
    "random": {"tokens": 32 * 16},
    "greedy": {"tokens": 32 * 16},
    "evolution": {"first_tokens": 32 * 4, "sensitivity_tokens": 32},
    "evopress": {"stages": ((32, 4), (128, 1), (512, 1))},
    "ppo": TOY | {"epochs": 4},
    **dict.fromkeys(("policy-gradient", "nsga2", "tpe", "policy-gradient-masks"), SAMPLED),
    "gp": SAMPLED | {"startup": 8},
    "maskable-ppo": TOY | {"epochs": 4},
    **{name: TOY | {"gradient_steps": 8, "batch_size": 64} for name in ("dqn", "ddpg", "sac", "td3")},
}


def run(
    agent: str, seed: int, journal: Path | None = None, toy: int = 0, tokens: int | None = None
) -> tuple[Objective, ToyScorer]:
    if agent == "maskable-ppo":
        pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    space = toy_space(seed=toy)
    scorer = ToyScorer(space, seed=toy)
    with closing(Journal(journal)) as opened:
        objective = Objective(space, scorer, Limits(tokens=tokens or TOKENS[agent]), opened)
        with suppress(LimitReached):
            registry.load("agents", agent)(**OPTIONS.get(agent, {})).search(objective, np.random.default_rng(seed))
    return objective, scorer


@pytest.mark.parametrize("agent", AGENTS)
def test_only_feasible_policies_within_the_limits(agent: str) -> None:
    objective, _ = run(agent, seed=0)
    assert objective.archive()
    assert all(objective.space.feasible(policy) for policy, _, _ in objective.archive())
    assert objective.space.feasible(objective.best)
    assert objective.spent.tokens <= TOKENS[agent]


@pytest.mark.parametrize("agent", AGENTS)
def test_two_runs_of_one_seed_are_equal(agent: str) -> None:
    first, second = run(agent, seed=5)[0], run(agent, seed=5)[0]
    assert first.archive() == second.archive()
    assert first.best == second.best


@pytest.mark.parametrize("agent", AGENTS)
def test_killed_and_resumed_equals_uninterrupted(agent: str, tmp_path: Path) -> None:
    whole, _ = run(agent, seed=2, journal=tmp_path / "whole")
    lines = (tmp_path / "whole").read_text().splitlines(keepends=True)
    for share in (0.0, 0.3, 0.9):
        path = tmp_path / f"killed-{share}"
        kept = lines[: max(1, int(len(lines) * share))]
        path.write_text("".join(kept) + '{"levels": [1, 2')
        resumed, scorer = run(agent, seed=2, journal=path)
        assert resumed.archive() == whole.archive()
        assert resumed.best == whole.best
        assert resumed.spent.tokens == whole.spent.tokens
        assert scorer.calls == whole.spent.evals - (len(kept) - 1)
        assert _scores(path) == _scores(tmp_path / "whole")


@functools.cache
def optimum(toy: int) -> float:
    """The lowest loss on a toy."""
    return best_loss(ToyScorer(toy_space(seed=toy), seed=toy), restarts=8)


@functools.cache
def gap(agent: str, toy: int, tokens: int) -> float:
    """How far above the optimum an agent's answer is."""
    objective, scorer = run(agent, seed=toy, toy=toy, tokens=tokens)
    return scorer.true_loss(objective.best) - optimum(toy)


@pytest.mark.parametrize("agent", [name for name in AGENTS if name not in BASELINES])
def test_better_than_random_at_equal_tokens(agent: str) -> None:
    gaps = {name: [gap(name, toy, TOKENS[agent]) for toy in range(3)] for name in ("random", agent)}
    assert np.mean(gaps[agent]) < 0.5 * np.mean(gaps["random"]), gaps


@pytest.mark.parametrize("agent", AGENTS)
def test_what_is_drawn_elsewhere_in_the_process_plays_no_part(agent: str) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = run(agent, seed=3)[0].archive()
    torch.manual_seed(2)
    np.random.seed(2)
    assert run(agent, seed=3)[0].archive() == first


def test_every_agent_that_learns_is_named_here() -> None:
    """Its share of tokens is smaller, and its stages are scaled to the toy."""
    assert {name for name in AGENTS if load_agent(name).save is not Agent.save} == LEARNING


def test_evolution_comes_close_to_the_optimum() -> None:
    gaps = []
    for toy in range(3):
        scorer = ToyScorer(toy_space(seed=toy), seed=toy)
        start = scorer.true_loss(scorer.space.uniform()) - optimum(toy)
        gaps.append(gap("evolution", toy, TOKENS["evolution"]) / start)
    assert np.mean(gaps) < 0.1, gaps


def _scores(path: Path) -> list[str]:
    """The journal's lines without their times."""
    return sorted(line.rpartition(',"seconds"')[0] for line in path.read_text().splitlines())


def test_greedy_ends_within_few_tokens() -> None:
    space = toy_space()
    scorer = ToyScorer(space)
    objective = Objective(space, scorer, Limits(tokens=32 * (16 + 30 + 17)))
    with suppress(LimitReached):
        registry.load("agents", "greedy")().search(objective, np.random.default_rng(0))
    assert len(objective.archive()) == 2, "uniform, and where the walk ended"
    assert all(n == 16 for _, _, n in objective.archive())
