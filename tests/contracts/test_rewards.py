"""What holds for every registered reward, and for the shaping that may be added to it."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from autoprune import registry
from autoprune.envs.episodes import EpisodeRules
from autoprune.envs.pruning import PruningEnv
from autoprune.envs.rewards import RewardRecord, every_step
from autoprune.envs.rewards.record import pay, pays_every_step
from autoprune.envs.vectorized import PruningVecEnv
from autoprune.errors import UserError
from autoprune.testing import check_reward
from autoprune.testing.toys import ToyScorer, toy_rules, toy_space

REWARDS = registry.names("rewards")
DENSE = {"purl"}
UNIT = toy_space(units=1).units[0]


def record(**changes: object) -> RewardRecord:
    """The last of four steps, within a budget of half."""
    plain = RewardRecord(4, 4, UNIT, 0.5, 1.0, 0.5, 0.2, 0.9, {"params": 0.5}, {"params": 0.5})
    return replace(plain, **changes)  # type: ignore[arg-type]


# -- built in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REWARDS)
def test_the_contract_of_rewards(name: str) -> None:
    check_reward(name)


@pytest.mark.parametrize("name", REWARDS)
def test_a_clearly_better_loss_pays_more(name: str) -> None:
    reward = registry.load("rewards", name)
    paid = [reward(record(loss=loss)) for loss in (0.85, 1.0, 2.0, 4.0)]
    assert all(better > worse + 1e-3 for better, worse in itertools.pairwise(paid)), paid


@pytest.mark.parametrize("name", REWARDS)
def test_only_rewards_that_are_marked_pay_at_every_step(name: str) -> None:
    rules = toy_rules(registry.load("rewards", name), ToyScorer(toy_space(units=4)))
    env = PruningEnv(rules)
    env.reset(seed=0)
    paid = [env.step(np.int64(2))[1] for _ in range(4)]
    assert pays_every_step(registry.load("rewards", name)) == (name in DENSE)
    assert all(value != 0 for value in paid[:3]) if name in DENSE else paid[:3] == [0, 0, 0]
    assert paid[3] != 0


@pytest.mark.parametrize(
    ("name", "changes", "value"),
    [
        ("amc", {}, -0.8 / 0.7),
        ("amc", {"loss": 0.2}, 0.0),
        ("amc", {"uniform_loss": 0.2}, -0.8e6),
        ("loss", {}, -0.8),
        ("rewarded-meta", {}, math.exp(-0.8) + 0.05),
        ("rewarded-meta", {"costs": {"params": 0.4, "macs": 0.2}}, math.exp(-0.8) + 0.07),
        ("purl", {}, -5 * (1 - math.exp(-0.8) / (1.1 * math.exp(-0.7)))),
        ("purl", {"loss": 0.5}, 0.0),
        ("purl", {"loss": 0.5, "costs": {"params": 0.75}}, -2.5),
        ("purl", {"loss": 0.5, "costs": {"params": 1.0}, "budgets": {"params": 1.0}}, 0.0),
    ],
)
def test_rewards_are_as_their_papers_have_them(name: str, changes: dict[str, object], value: float) -> None:
    assert registry.load("rewards", name)(record(**changes)) == pytest.approx(value)


# -- of one's own ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 1.5, np.float32(0.5), np.int64(3), np.array(2.0)[()]])
def test_numbers_of_any_kind_are_taken(value: float) -> None:
    paid = pay(lambda seen: value, record())
    assert type(paid) is float
    assert paid == value


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (math.nan, r"returned nan at step 4 of 4 \(loss 1, costs \{'params': 0\.5\}\): it must be finite"),
        (math.inf, "returned inf at step 4 of 4"),
        (np.float32(-np.inf), "returned -inf at step 4 of 4"),
        (-1e300, r"returned -1e\+300 at step 4 of 4 .*: it must be finite, and up to 1e\+30 in size"),
        (-(10**400), "returned an integer of 1329 bits at step 4 of 4"),
        (None, r"must return one number; it returned NoneType \(None\)"),
        ("0.5", r"must return one number; it returned str \('0\.5'\)"),
        (True, r"must return one number; it returned bool \(True\)"),
        (np.ones(3), r"must return one number; it returned ndarray of shape \(3,\)"),
        ((1.0, {}), r"must return one number; it returned tuple"),
    ],
)
def test_anything_else_is_refused(value: object, seen: str) -> None:
    def mine(seen: RewardRecord) -> object:
        return value

    with pytest.raises(UserError, match=rf"^the reward 'mine' \(.*test_rewards\.py, line \d+\) {seen}"):
        pay(mine, record())  # type: ignore[arg-type]


def test_the_record_of_each_step_is_what_its_names_say() -> None:
    """A dense reward of one's own sees costs, budgets and losses of the policy so far."""
    seen: list[RewardRecord] = []

    @every_step
    def mine(given: RewardRecord) -> float:
        seen.append(given)
        return 0.0

    scorer = ToyScorer(toy_space(units=4, latency=0.6), noise=0)
    space = scorer.space
    env = PruningEnv(toy_rules(mine, scorer))
    env.reset(seed=0)
    for level in (3, 2, 4, 3):
        env.step(np.int64(level))
    assert [(one.step, one.steps, one.unit, one.kept) for one in seen] == [
        (u + 1, 4, space.units[u], kept) for u, kept in enumerate((0.25, 0.5, 0.0, 0.25))
    ]
    partial = [(3, 0, 0, 0), (3, 2, 0, 0), (3, 2, 4, 0), space.repair((3, 2, 4, 3))]
    for one, policy in zip(seen, partial, strict=True):
        assert one.loss == pytest.approx(scorer.true_loss(policy))
        dense = {metric: space.cost(space.dense, metric) for metric in space.budgets}
        assert one.costs == pytest.approx({metric: space.cost(policy, metric) / dense[metric] for metric in dense})
        assert one.budgets == pytest.approx({metric: space.budgets[metric] / dense[metric] for metric in dense})
        assert one.dense_loss == 0
        assert one.uniform_loss == pytest.approx(scorer.true_loss(space.uniform()))
    assert [one.previous_loss for one in seen] == [0, *(one.loss for one in seen[:3])]
    assert [one.done for one in seen] == [False, False, False, True]


# -- shaping ---------------------------------------------------------------------------------------------------------


def totals(rules: EpisodeRules, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of three random episodes side by side, `[steps, 3]`, and their totals as the outcome has them."""
    ended: list[np.ndarray] = []
    env = PruningVecEnv(rules, 3, np.random.default_rng(0), lambda outcome: ended.append(outcome.rewards_N))
    env.reset()
    rng = np.random.default_rng(seed)
    actions = [
        rng.uniform(-1, 1, (3, 1)) if rules.actions == "continuous" else rng.integers(5, size=3) for _ in range(8)
    ]
    return np.array([env.step(action)[1] for action in actions], dtype=np.float64), ended[0]


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("actions", ["discrete", "continuous"])
@pytest.mark.parametrize("seed", range(3))
def test_shaping_moves_reward_between_steps_and_adds_nothing(name: str, actions: str, seed: int) -> None:
    scorer = ToyScorer(toy_space(units=8, seed=seed), seed=seed)
    options = {"actions": actions, "reference": scorer.space.uniform() if seed % 2 else None}
    reward = registry.load("rewards", name)
    plain, plain_N = totals(toy_rules(reward, scorer, **options), seed)
    shaped, shaped_N = totals(toy_rules(reward, scorer, shaping=2.0, **options), seed)
    assert shaped_N == pytest.approx(plain_N, abs=1e-9)
    assert (shaped - plain).sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-5)
    assert np.abs(shaped - plain).max() > 0.1
    assert np.all((shaped - plain)[:-1] <= 1e-6), "what a level is expected to cost is paid when it is chosen"


def test_shaping_is_minus_the_sensitivities_in_units_of_the_uniform_policys() -> None:
    scorer = ToyScorer(toy_space(units=5), noise=0, pairs=0)
    space = scorer.space
    env = PruningEnv(toy_rules(registry.load("rewards", "amc"), scorer, shaping=1.5))
    env.reset(seed=0)
    uniform = scorer.true_loss(space.uniform())
    for u, level in enumerate((2, 4, 0)):
        _, paid, *_ = env.step(np.int64(level))
        alone = scorer.true_loss(tuple(level if v == u else 0 for v in range(5)))
        assert paid == pytest.approx(-1.5 * alone / uniform, rel=0.05)


def test_without_sensitivities_there_is_no_shaping() -> None:
    scorer = ToyScorer(toy_space(units=8))
    reward = registry.load("rewards", "amc")
    rules = replace(toy_rules(reward, scorer, shaping=2.0), added_UL=None)
    assert np.array_equal(totals(rules, 0)[0], totals(toy_rules(reward, scorer), 0)[0])
