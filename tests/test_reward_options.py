"""Options of rewards: `reward_options.KEY=VALUE`, on the command line, in Python and in the environment."""

import functools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import autoprune
from autoprune import listing, registry
from autoprune.comparing.plan import ComparisonPlan
from autoprune.config import load_config
from autoprune.envs.rewards import RewardRecord, every_step
from autoprune.envs.rewards.amc import amc
from autoprune.envs.rewards.options import load_reward
from autoprune.envs.rewards.record import pay, pays_every_step
from autoprune.errors import UserError
from autoprune.study import make_agent
from autoprune.testing import check_reward
from autoprune.testing.toys import toy_space
from tests.test_cli import Cli

RECORD = RewardRecord(
    4, 4, toy_space(units=1).units[0], 0.5, 1.0, 0.5, 0.2, 0.9, {"params": 0.6}, {"params": 0.5}
)  # the last of four steps
CHEAP = ("--agent", "ppo", "agent_options.episodes=2", "agent_options.tokens=32", "agent_options.race_tokens=32")


@every_step
def careful(record: RewardRecord, *, penalty: float = 0.1) -> float:
    """A reward of one's own with an option."""
    return -record.loss - penalty


class Careful:
    """The same as a class."""

    def __init__(self, penalty: float = 0.1) -> None:
        self.penalty = penalty

    def __call__(self, record: RewardRecord) -> float:
        """What it pays."""
        return -record.loss - self.penalty


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("purl", {}, -5 * (1 - math.exp(-0.8) / (1.1 * math.exp(-0.7)) + 0.2)),
        ("purl", {"beta": 2}, -2 * (1 - math.exp(-0.8) / (1.1 * math.exp(-0.7)) + 0.2)),
        ("purl", {"accuracy_target": 0.9}, -5 * (1 - math.exp(-0.8) / 0.9 + 0.2)),
        ("purl", {"accuracy_target": 0.4, "sparsity_target": 0.8}, -2.5),
        ("rewarded-meta", {"accuracy": 2.0, "efficiency": 1.5}, 2 * math.exp(-0.8) + 1.5 * 0.4),
        ("amc", {"scale": 0.01}, -0.01 * 0.8 / 0.7),
        ("loss", {"scale": 3}, -2.4),
    ],
)
def test_options_change_what_is_paid(name: str, options: dict[str, Any], value: float) -> None:
    reward = load_reward(name, options)
    assert pay(reward, RECORD) == pytest.approx(value)
    assert pays_every_step(reward) == pays_every_step(registry.load("rewards", name))
    check_reward(name, options=options)


def test_without_options_a_reward_is_itself() -> None:
    assert load_reward("amc") is amc
    assert load_reward(amc, {}) is amc


@pytest.mark.parametrize("reward", [careful, Careful])
def test_rewards_of_ones_own_have_options(reward: Callable[..., Any]) -> None:
    assert pay(load_reward(reward, {"penalty": 1}), RECORD) == -2.0
    assert pay(load_reward(reward), RECORD) == pytest.approx(-1.1)
    with pytest.raises(UserError, match=r"has no option 'penalti'\. Did you mean 'penalty'\? It has: penalty\."):
        load_reward(reward, {"penalti": 1})
    assert pays_every_step(load_reward(careful, {"penalty": 1}))


def test_an_object_and_a_builtin_take_what_they_can() -> None:
    assert pay(load_reward(functools.partial(careful, penalty=2.0)), RECORD) == -3.0
    with pytest.raises(UserError, match="has no option 'penalty'"):
        load_reward(max, {"penalty": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (("--reward", "purl", "reward_options.betta=3"), ("'purl'", "'betta'", "'beta'", "accuracy_target")),
        (("--reward", "purl", "reward_options.beta=-1"), ("reward_options.beta", "'purl'", "equal to 0", "-1")),
        (("--reward", "purl", "reward_options.beta=many"), ("reward_options.beta", "number", "'many'")),
        (("--reward", "purl", "reward_options.beta=yes"), ("reward_options.beta", "true and false", "True")),
        (("--reward", "purl", "reward_options.accuracy_target=2"), ("accuracy_target", "equal to 1", "2")),
        (("reward_options.beta=1",), ("'amc'", "'beta'", "scale")),
        (("reward_options=3",), ("reward_options", "dictionary", "3")),
    ],
)
def test_mistakes_are_sentences(refused: Callable[..., str], given: tuple[str, ...], seen: tuple[str, ...]) -> None:
    refused("search", *CHEAP, *given, seen=seen)


def test_an_agent_that_takes_no_reward_says_so(refused: Callable[..., str]) -> None:
    refused("search", "--agent", "random", "reward_options.beta=1", seen=("'random'", "'reward_options'", "batch"))


def test_the_list_shows_options(cli: Cli) -> None:
    shown = " ".join(cli("list", "rewards").out.split())
    assert "Options: beta=5.0: size of the penalty. accuracy_target=None: T_A, relative to the dense network" in shown
    told = json.loads(cli("list", "rewards", "--json").out)["rewards"]
    assert all("Options: " in line for line in told.values())
    assert "Options" not in listing.describe("agents")["agents"]["ppo"]


def test_a_run_keeps_them_and_goes_on_with_them(quick: dict[str, Any], tmp_path: Path) -> None:
    own: dict[str, Any] = {"episodes": 2, "tokens": 32, "race_tokens": 64, "sensitivity_tokens": 0}
    settings = quick | {"agent": "dqn", "reward": "purl", "agent_options": own, "max_evals": 60, "seed": 3}
    found = autoprune.search(**settings, reward_options={"beta": 2.0}, out=tmp_path / "run")
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["reward_options"] == {"beta": 2.0}
    assert found.policy.provenance["reward"] == "purl"
    assert found.policy.provenance["reward_options"] == {"beta": 2.0}
    (tmp_path / "run" / "result.json").unlink()
    assert autoprune.resume(tmp_path / "run").history == found.history


def test_the_environment_takes_them(quick: dict[str, Any]) -> None:
    made: dict[str, Any] = {"tokens": 32, "sensitivities": False, "reward": "purl"}
    names = ("model", "data", "levels", "sequence_length", "reconstruction_sequences", "search_sequences")
    small = {name: quick[name] for name in names if name in quick}
    paid = []
    for beta in (1.0, 3.0):
        env = autoprune.make_env(**small, **made, reward_options={"beta": beta})
        env.reset(seed=0)
        paid.append(env.step(1)[1])
    assert paid[1] == pytest.approx(3 * paid[0])
    with pytest.raises(UserError, match="the reward 'purl' has no option 'b'"):
        autoprune.make_env(**small, **made, reward_options={"b": 1})


def test_in_a_comparison_they_go_to_agents_that_take_them() -> None:
    common = load_config(None, {"reward": "purl", "reward_options.beta": 2.0})
    searches = ComparisonPlan.of(common, ["ppo", "random"], [0]).searches()
    assert [one.reward_options for one in searches.values()] == [{"beta": 2.0}, {}]
    assert make_agent("ppo", searches["ppo-s0"].agent_settings()).reward_options == {"beta": 2.0}  # type: ignore[attr-defined]


def test_numbers_of_numpy_and_paths_are_kept_as_yaml_has_them() -> None:
    import numpy as np

    config = load_config(None, {"reward_options": {"beta": np.float64(2.0)}})
    assert type(config.reward_options["beta"]) is float
    with pytest.raises(UserError, match=r"reward_options\.beta is of the type"):
        load_config(None, {"reward_options": {"beta": object()}})


def test_quality_above_the_target_pays_no_more() -> None:
    reward = load_reward("purl", {"accuracy_target": 0.5})
    assert pay(reward, replace(RECORD, loss=0.2, costs={"params": 0.5})) == 0.0
