"""Agents on Optuna's samplers: that they learn without sensitivities, and the Pareto front of NSGA-II."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.agents import gp
from autoprune.agents.nsga2 import NSGA2
from autoprune.errors import LimitReached, UserError
from autoprune.objective import Limits, Objective
from autoprune.policy import Policy
from autoprune.space import SearchSpace
from autoprune.study import make_agent
from autoprune.testing.toys import ToyScorer, best_loss, toy_space
from tests.conftest import Answer

TOY = {"tokens": 64, "race_tokens": 128, "sensitivity_tokens": 0, "radius": 0}


def searched(name: str, toy: int, evals: int, **options: Any) -> tuple[Any, Objective, ToyScorer]:
    space = toy_space(units=8, seed=toy)
    scorer = ToyScorer(space, seed=toy)
    objective, agent = Objective(space, scorer, Limits(tokens=32 * evals)), make_agent(name, TOY | options)
    with suppress(LimitReached):
        agent.search(objective, np.random.default_rng(toy))
    return agent, objective, scorer


@pytest.mark.parametrize(("name", "evals"), [("policy-gradient", 900), ("tpe", 700), ("nsga2", 1200)])
def test_learns_from_scores_alone(name: str, evals: int) -> None:
    """From the uniform policy, without sensitivities: most of the way to the optimum."""
    left = []
    for toy in range(3):
        _, objective, scorer = searched(name, toy, evals)
        optimum, start = best_loss(scorer, restarts=8), scorer.true_loss(scorer.space.uniform())
        left.append((scorer.true_loss(objective.best) - optimum) / (start - optimum))
    assert np.mean(left) < 0.15, left


def test_policy_gradients_are_more_than_their_races() -> None:
    """The same search with nothing learned ends higher."""
    gaps: dict[float | None, list[float]] = {None: [], 0.0: []}
    for rate, found in gaps.items():
        for toy in range(4):
            _, objective, scorer = searched("policy-gradient", toy, 700, learning_rate=rate)
            found.append(scorer.true_loss(objective.best) - best_loss(scorer, restarts=8))
    assert np.mean(gaps[None]) < 0.7 * np.mean(gaps[0.0]), gaps


def test_a_front_is_within_the_budget_and_nothing_in_it_is_beaten() -> None:
    agent, objective, scorer = searched("nsga2", 1, 1500, sensitivity_tokens=32)
    front, space = agent.front(objective), scorer.space
    assert 4 <= len(front) <= agent.points
    costs = [space.cost(policy, "params") for policy in front]
    losses = [objective.loss(policy)[0] for policy in front]
    assert costs == sorted(costs, reverse=True)
    assert losses == sorted(losses), "cheaper is worse"
    assert all(space.feasible(policy) for policy in front)
    assert costs[-1] < 0.7 * costs[0], "it spans budgets"
    sparse = space.rebudgeted({"params": costs[-1]})
    assert scorer.true_loss(front[-1]) < scorer.true_loss(sparse.uniform())


def test_a_search_that_ends_early_has_a_front_of_what_it_scored() -> None:
    agent, objective, _ = searched("nsga2", 1, 60, sensitivity_tokens=32)
    front = agent.front(objective)
    assert all(objective.space.feasible(policy) for policy in front)
    assert NSGA2().front(objective) == [], "nothing was searched"


def test_a_search_whose_tokens_are_spent_before_the_first_batch_has_no_front() -> None:
    space = toy_space(units=8)
    for tokens in range(30, 48):
        objective, agent = (
            Objective(space, ToyScorer(space), Limits(tokens=32 * tokens)),
            NSGA2(tokens=64, race_tokens=128),
        )
        agent.sensitivity_tokens = 32
        with suppress(LimitReached):
            agent.search(objective, np.random.default_rng(0))
        assert space.feasible(objective.best)
        assert all(space.feasible(policy) for policy in agent.front(objective))


def test_a_front_begins_where_levels_end() -> None:
    """The last level keeps half: no policy is at half of the budget."""
    toy = toy_space(units=6)
    units = [replace(unit, levels=unit.levels[:3]) for unit in toy.units]
    costs = {"params": [row[:3] for row in toy.rows("params")]}
    space = SearchSpace(units, costs, {"params": 0.6 * toy.cost(toy.dense, "params")})
    assert all(space.feasible(levels) for levels in NSGA2().first(space, space.uniform(), None))


@pytest.mark.slow
def test_a_front_is_a_set_of_policies_that_can_be_exported(
    quick_arguments: list[str], cli: Callable[..., Answer], tmp_path: Path
) -> None:
    options = {"tokens": 32, "race_tokens": 64, "population": 8, "sensitivity_tokens": 32}
    given = [f"agent_options.{key}={value}" for key, value in options.items()]
    run = tmp_path / "run"
    budgets = ["--budget", "params=0.8", "--budget", "macs=0.9"]
    answer = cli(
        "search", *quick_arguments, "max_evals=150", *given, *budgets, "--agent", "nsga2", "--out", run, "--json"
    )
    assert answer.status == 0, answer.err
    rows = json.loads(answer.out)["front"]
    files = sorted(path.stem for path in (run / "front").iterdir())
    assert sorted(row["name"] for row in rows) == files
    assert len(files) >= 3
    for row in rows:
        policy = Policy.load(run / "front" / f"{row['name']}.json")
        assert policy.costs["params"].policy <= policy.costs["params"].budget  # type: ignore[operator]
        assert policy.losses["validation"][row["name"]]["loss"] == row["validation_loss"]
    smallest = min(rows, key=lambda row: row["params"])
    file = run / "front" / f"{smallest['name']}.json"
    answer = cli("export", run, tmp_path / "hf", "--policy", file, "--json")
    assert answer.status == 0, answer.err
    answer = cli("evaluate", tmp_path / "hf", "--sequence-length", 32, "--json")
    assert json.loads(answer.out)["params"] == smallest["params"]

    import optuna

    from autoprune.records.storage import open_storage

    (name,) = optuna.get_all_study_names(open_storage(run, None))
    study = optuna.load_study(storage=open_storage(run, None), study_name=name)
    assert len(study.directions) == 3
    assert study.best_trials


def test_gp_without_scipy_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gp, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'autoprune\[gp\]'"):
        make_agent("gp", {})
