"""Every registered agent ends: on any space, within any limit, under any number of budgets, and so does one of a user's
own that asks for what is known alone."""

import itertools
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autoprune import registry
from autoprune import spending as module
from autoprune.errors import LimitReached
from autoprune.journal import Journal
from autoprune.objective import IDLE, Limits, Objective
from autoprune.space import SearchSpace
from autoprune.testing.toys import ToyScorer, toy_space
from tests.watchdog import within

AGENTS = registry.names("agents")
SECONDS = 60  # a hundred times what most of these searches take

SPACES: dict[str, dict[str, Any]] = {
    "one unit": {"units": 1},
    "two units": {"units": 2, "levels": 3},
    "depth": {"units": 4, "levels": 2},
    "nothing is left": {"units": 2, "budget": 1e-12},
    "everything fits": {"units": 2, "budget": 1.0},
    "many units": {"units": 40, "levels": 4},
}
LIMITS = {"evals": Limits(evals=10), "tokens": Limits(tokens=32 * 16), "seconds": Limits(seconds=1.0)}

FEW = {"tokens": 32, "race_tokens": 64, "sensitivity_tokens": 32}
QUICK: dict[str, dict[str, Any]] = {
    "random": {"tokens": 64},
    "evolution": {"first_tokens": 64, "sensitivity_tokens": 32},
    "evopress": {"offspring": 4, "stages": ((32, 2), (64, 1)), "starts": 4},
    **dict.fromkeys(("policy-gradient", "tpe", "policy-gradient-masks"), FEW | {"batch": 2}),
    "nsga2": FEW | {"batch": 4, "population": 4},
    "gp": FEW | {"batch": 1, "startup": 20},
    **{name: FEW | {"episodes": 2, "net_arch": (8,), "epochs": 1} for name in ("ppo", "maskable-ppo")},
    **{name: FEW | {"episodes": 2, "net_arch": (8,), "gradient_steps": 1} for name in ("dqn", "ddpg", "sac", "td3")},
    "purl": FEW | {"net_arch": (8,), "gradient_steps": 1},
}
"""Settings with which a search of a toy takes a moment."""


def search(agent: str, space: SearchSpace, limits: Limits) -> Objective:
    if agent == "maskable-ppo":
        pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    objective = Objective(space, ToyScorer(space), limits)
    with within(SECONDS), suppress(LimitReached):
        registry.load("agents", agent)(**QUICK.get(agent, {})).search(objective, np.random.default_rng(0))
    return objective


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of a second passes at each look at the clock: no test waits, and none depends on the machine."""
    ticks = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 100))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_ends_on_every_space_within_every_limit(agent: str) -> None:
    for settings, limits in itertools.product(SPACES.values(), LIMITS.values()):
        objective = search(agent, toy_space(**settings), limits)
        space, spent = objective.space, objective.spent
        assert space.feasible(objective.best)
        assert np.isfinite(objective.loss(objective.best)[0])
        assert limits.evals is None or spent.evals <= limits.evals
        assert limits.tokens is None or spent.tokens <= limits.tokens


@pytest.mark.parametrize("budgets", [1, 3, 12])
@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_under_any_number_of_budgets(agent: str, budgets: int) -> None:
    space = toy_space(units=8, more=budgets - 1)
    assert len(space.budgets) == budgets
    objective = search(agent, space, Limits(evals=60))
    assert space.feasible(objective.best)
    assert all(space.cost(objective.best, metric) <= 1.001 * bound for metric, bound in space.budgets.items())
    if agent == "uniform":
        return
    true_loss = ToyScorer(space).true_loss
    assert true_loss(objective.best) <= true_loss(space.uniform()) + 0.1


# -- agents of a user's own ------------------------------------------------------------------------------------------


def known_for_ever(objective: Objective) -> None:
    while True:
        objective([objective.space.uniform()], tokens=32)


def nothing_for_ever(objective: Objective) -> None:
    while True:
        objective.by_sequence([], range(2))


def looks_for_ever(objective: Objective) -> None:
    while True:
        objective.look_at_clock()


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("agent", [known_for_ever, nothing_for_ever])
def test_an_agent_that_asks_for_nothing_new_is_ended(agent: Callable[[Objective], None], limits: Limits) -> None:
    space = toy_space()
    objective = Objective(space, ToyScorer(space), limits)
    with within(SECONDS), pytest.raises(LimitReached):
        agent(objective)
    assert objective.spent.evals <= 1


def test_one_that_finds_something_new_in_time_is_not_ended() -> None:
    space = toy_space()
    objective = Objective(space, ToyScorer(space), Limits(evals=3))
    most = IDLE * (100 + len(space.units))
    for s in range(3):
        for _ in range(most):  # of which the first is new
            objective.by_sequence([space.uniform()], [s])
    assert objective.spent.evals == 3


def test_what_has_no_limit_is_ended_by_its_user_alone() -> None:
    """As an environment, whose agent may play the same episode for as long as it learns from it."""
    space = toy_space()
    objective = Objective(space, ToyScorer(space), Limits())
    for _ in range(IDLE * (101 + len(space.units))):
        objective.by_sequence([space.uniform()], [0])


@pytest.mark.parametrize("agent", [known_for_ever, nothing_for_ever, looks_for_ever])
def test_time_is_looked_at_when_all_is_known(agent: Callable[[Objective], None], clock: None, tmp_path: Path) -> None:
    space, looks = toy_space(), []
    for life in range(3):  # the later ones replay the first
        scorer = ToyScorer(space)
        with closing(Journal(tmp_path / "journal")) as journal, within(SECONDS):
            objective = Objective(space, scorer, Limits(seconds=2.0), journal)
            objective([space.uniform()], tokens=64)
            with pytest.raises(LimitReached):
                agent(objective)
        assert 2.0 <= objective.spent.seconds < 2.1
        assert scorer.calls == (0 if life else 1)
        looks.append((objective.spent.seconds, (tmp_path / "journal").read_bytes()))
    assert len(set(looks)) == 1


def test_a_replay_ends_where_time_was_over_though_more_is_new(clock: None, tmp_path: Path) -> None:
    """Replaying is quicker than the search was: by its own clock it would go on."""
    space, rng = toy_space(), np.random.default_rng(0)
    first, second = space.sample(rng), space.sample(rng)

    def slow(objective: Objective, thinking: int) -> None:
        objective([first], tokens=32)
        for _ in range(thinking):
            objective.look_at_clock()
        objective([first], tokens=32)
        objective([second], tokens=32)

    with closing(Journal(tmp_path / "journal")) as journal, pytest.raises(LimitReached):
        slow(Objective(space, ToyScorer(space), Limits(seconds=1.0), journal), 500)
    before = (tmp_path / "journal").read_bytes()
    with closing(Journal(tmp_path / "journal")) as journal:
        again = Objective(space, ToyScorer(space), Limits(seconds=1.0), journal)
        with pytest.raises(LimitReached):
            slow(again, 500)
        assert again.best == first
        assert (tmp_path / "journal").read_bytes() == before
        longer = Objective(space, ToyScorer(space), Limits(seconds=100.0), journal)
        slow(longer, 500)
        assert longer.spent.evals == 2, "a later limit is not bound by an earlier end"
