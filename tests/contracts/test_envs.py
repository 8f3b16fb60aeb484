"""What holds for the environment, alone and vectorised, whatever the actions, observations, rewards and reference."""

import itertools
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.monitor import Monitor

import autoprune
from autoprune import registry
from autoprune.envs.episodes import Actions, EpisodeRules, InvalidAction, Outcome
from autoprune.envs.pruning import PruningEnv
from autoprune.envs.rewards.record import pays_every_step
from autoprune.envs.vectorized import PruningVecEnv
from autoprune.errors import LimitReached
from autoprune.objective import Limits, Objective
from autoprune.space import Levels, SearchSpace
from autoprune.testing import check_env
from autoprune.testing.toys import ToyScorer, counts, toy_rules, toy_space

ACTIONS = ("discrete", "continuous")
REWARDS = registry.names("rewards")
KINDS = list(itertools.product(ACTIONS, ("vector", "dict"), REWARDS, (False, True)))
BUDGETS = [(0.02, None), (0.3, None), (0.9, None), (0.6, 0.5), (0.5, 0.35)]


def rules_of(
    reward: str = "amc",
    space: SearchSpace | None = None,
    follow: bool = False,
    scorer: ToyScorer | None = None,
    **options: Any,
) -> EpisodeRules:
    """Rules of episodes on a toy; `follow` sets the uniform policy as the reference."""
    scorer = scorer or ToyScorer(space or toy_space(units=6))
    reference = scorer.space.uniform() if follow else None
    return toy_rules(registry.load("rewards", reward), scorer, reference, **options)


def drawn(rng: np.random.Generator) -> list[int]:
    """Two of the toy's sequences."""
    return sorted(int(s) for s in rng.choice(ToyScorer.n_sequences, 2, replace=False))


def played(env: gymnasium.Env[Any, Any], rng: np.random.Generator, seed: int = 0) -> Iterator[tuple[Any, ...]]:
    """An episode of random actions: what `step` returns, and first what `reset` does."""
    observation, info = env.reset(seed=seed)
    yield observation, 0.0, False, False, info
    for _ in env.unwrapped.rules.objective.space.units:  # type: ignore[attr-defined]
        yield env.step(random_action(env.action_space, rng))


def random_action(space: gymnasium.Space[Any], rng: np.random.Generator) -> Any:
    if isinstance(space, gymnasium.spaces.Discrete):
        return np.int64(rng.integers(space.n))
    return rng.uniform(-1, 1, 1).astype(np.float32)


def flat(observation: Any) -> np.ndarray:
    return np.concatenate(list(observation.values())) if isinstance(observation, dict) else observation


# -- one environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("actions", "observation", "reward", "follow"), KINDS)
def test_the_contract_of_environments(actions: str, observation: str, reward: str, follow: bool) -> None:
    options: dict[str, Any] = {"actions": actions, "observation": observation}
    check_env(lambda: PruningEnv(rules_of(reward, follow=follow, **options), "ansi"))


@pytest.fixture(scope="module")
def small(quick: dict[str, Any]) -> dict[str, Any]:
    """The tiny model's settings for `make_env`."""
    return {key: value for key, value in quick.items() if key != "max_evals"}


@pytest.mark.parametrize("actions", ACTIONS)
def test_the_checkers_pass_on_a_real_network(actions: Actions, small: dict[str, Any]) -> None:
    made = gymnasium.make(
        "autoprune/Pruning-v0", **small, actions=actions, tokens=32, reference="additive", shaping=1.0, reward="purl",
        observation="dict", budgets={"params": 0.5, "macs": "0.6"}, render_mode="ansi",
    )  # fmt: skip
    gymnasium_check_env(made.unwrapped)
    for observation, *_ in played(made, np.random.default_rng(0)):
        assert made.observation_space.contains(observation)
    env = autoprune.make_env(**small, actions=actions, tokens=64)
    sb3_check_env(env)
    *_, (last, reward, terminated, _, info) = played(env, np.random.default_rng(1))
    assert terminated
    objective = env.rules.objective
    assert info["loss"] == pytest.approx(objective.by_sequence([info["levels"]], range(2)).mean())
    uniform = objective.by_sequence([objective.space.uniform()], range(2)).mean()
    assert reward == pytest.approx(-info["loss"] / uniform)
    static = last[:24]
    assert np.abs(static[[15, 16, 17, 19]]).max() > 0, "the statistics of the level store are shown"


@pytest.mark.parametrize(("params", "latency"), BUDGETS)
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("actions", ACTIONS)
def test_the_budget_holds_whatever_the_actions(
    actions: str, follow: bool, params: float, latency: float | None
) -> None:
    space = toy_space(budget=params, latency=latency)
    env = PruningEnv(rules_of(space=space, follow=follow, actions=actions))
    ends = [np.int64(0), np.int64(4)] if actions == "discrete" else [np.array([one], np.float32) for one in (-1, 1)]
    lowest, highest = ends
    for episode in range(12):
        rng = np.random.default_rng(episode)
        env.reset(seed=episode)
        for _ in space.units:
            action = {0: lowest, 1: highest}.get(episode, random_action(env.action_space, rng))
            *_, info = env.step(action)
        assert space.feasible(info["levels"])
        assert env.rules.objective.loss(info["levels"])[0] == pytest.approx(info["loss"])


@pytest.mark.parametrize(("actions", "observation", "reward", "follow"), KINDS)
def test_observations_are_finite_and_in_their_space(actions: str, observation: str, reward: str, follow: bool) -> None:
    space = toy_space(units=6, latency=0.6)
    env = PruningEnv(rules_of(reward, space, follow, actions=actions, observation=observation, sampler=drawn))
    for episode in range(5):
        seen = [row for row, *_ in played(env, np.random.default_rng(episode), episode)]
        assert len(seen) == 7
        assert all(env.observation_space.contains(row) for row in seen)
        assert all(flat(row).dtype == np.float32 and np.isfinite(flat(row)).all() for row in seen)
        assert len({flat(row).tobytes() for row in seen[:-1]}) == 6, "every unit looks different"


def test_observations_are_finite_where_units_cost_nothing() -> None:
    """A metric may count one kind of unit only: then nothing that costs anything is left at the end."""
    toy = toy_space(units=5)
    rows = [[float(10**9 * k if unit.kind == "attention" else 0) for k in counts(unit)] for unit in toy.units[:4]]
    costs = {"energy": rows, "params": [list(row) for row in toy.costs["params"][:4]]}
    bounds = {metric: sum(row[0] for row in rows) / 2 for metric, rows in costs.items()}
    space = SearchSpace(toy.units[:4], costs, bounds)
    for actions, follow in itertools.product(ACTIONS, (False, True)):
        env = PruningEnv(rules_of(space=space, follow=follow, actions=actions))
        for observation, *_ in played(env, np.random.default_rng(0)):
            assert env.observation_space.contains(observation)


@pytest.mark.parametrize(("actions", "reward"), list(itertools.product(ACTIONS, REWARDS)))
def test_the_same_seed_is_the_same_trajectory(actions: str, reward: str) -> None:
    def trajectory(seed: int) -> list[Any]:
        env = PruningEnv(rules_of(reward, actions=actions, sampler=drawn))
        rng = np.random.default_rng(7)
        steps = [*played(env, rng, seed), *played(env, rng, None), *played(env, rng, None)]  # type: ignore[arg-type]
        return [(flat(observed).tolist(), paid, info) for observed, paid, _, _, info in steps]

    assert trajectory(3) == trajectory(3)
    assert trajectory(3) != trajectory(4), "other sequences are read"


def test_episodes_read_other_sequences_only_where_asked(small: dict[str, Any]) -> None:
    samples: dict[bool, list[tuple[int, ...]]] = {}
    for resample in (False, True):
        env = autoprune.make_env(**small, tokens=64, resample=resample, sensitivities=False)
        samples[resample] = []
        for seed in range(8):
            env.reset(seed=seed)
            samples[resample].append(tuple(env.episodes.sample))
        assert all(len(set(sample)) == 2 for sample in samples[resample])
        env.reset(seed=3)
        assert tuple(env.episodes.sample) == samples[resample][3]
    assert set(samples[False]) == {(0, 1)}
    assert len(set(samples[True])) > 3


def test_an_episode_is_drawn_as_bars() -> None:
    env = PruningEnv(rules_of(), "ansi")
    env.reset(seed=0)
    assert env.render() == ""
    for action in (2, 0, 4):
        env.step(np.int64(action))
    first, second, third = env.render().splitlines()  # type: ignore[union-attr]
    assert first.split() == ["0.attention", "█" * 10 + "·" * 10, "50%"]
    assert second.split() == ["0.mlp", "█" * 20, "100%"]
    assert third.split() == ["1.attention", "·" * 20, "0%"]
    assert PruningEnv(rules_of()).render() is None


@pytest.mark.parametrize(
    ("actions", "action", "seen"),
    [
        ("discrete", 9, r"\[9\] is outside the space: integers from 0 to 4"),
        ("discrete", 5, r"\[5\] is outside"),
        ("discrete", -1, r"\[-1\] is outside"),
        ("discrete", 1.0, r"\[1\.0\] is outside"),
        ("discrete", np.float32(np.nan), r"\[nan\] is outside"),
        ("discrete", True, r"\[True\] is outside"),
        ("continuous", 1.5, r"\[1\.5\] is not a number from -1 to 1"),
        ("continuous", -1.01, r"\[-1\.01\] is not a number"),
        ("continuous", np.nan, r"\[nan\] is not a number"),
        ("continuous", -np.inf, r"\[-inf\] is not a number"),
    ],
)
def test_an_action_outside_the_space_is_refused(actions: str, action: Any, seen: str) -> None:
    env = PruningEnv(rules_of(actions=actions))
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match=seen):
        env.step(np.array([action]) if actions == "continuous" else action)
    assert env.levels == (), "nothing was set"
    env.step(np.array([0], np.float32) if actions == "continuous" else 0)
    assert len(env.levels) == 1


def test_an_invalid_action_is_a_value_error_and_a_users_mistake() -> None:
    assert issubclass(InvalidAction, ValueError)
    assert issubclass(InvalidAction, autoprune.UserError)


@pytest.mark.parametrize(("params", "latency"), BUDGETS)
@pytest.mark.parametrize("follow", [False, True])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_allowed_actions_are_executed_as_chosen(follow: bool, params: float, latency: float | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = toy_space(units=6, levels=int(rng.integers(2, 7)), budget=params, latency=latency, seed=seed)
    env = PruningEnv(rules_of(space=space, follow=follow))
    env.reset(seed=0)
    for u in range(6):
        (allowed,) = np.nonzero(env.action_masks())
        assert len(allowed), "there is always a way on"
        walk = env.episodes.walk
        pace = int(walk.levels_at(walk.ratios(np.zeros(1)))[0]) - walk.n_levels // 2 if follow else 0
        action = int(rng.choice(allowed))
        env.step(np.int64(action))
        assert walk.levels_NU[0, u] == action + pace


def test_what_is_not_allowed_is_not_executed() -> None:
    """The masks are no stricter than the budget asks: a level outside of them leaves too little for the rest."""
    space = toy_space(units=6, budget=0.3)
    env = PruningEnv(rules_of(space=space))
    env.reset(seed=0)
    refused = 0
    for u in range(6):
        masks = env.action_masks()
        for level in range(5):
            trial = (*env.levels, level, *space.sparsest[u + 1 :])
            assert masks[level] == space.feasible(trial)
        refused += int((~masks).sum())
        env.step(np.int64(0))
        chosen = env.episodes.walk.levels_NU[0, u]
        assert chosen == int(np.nonzero(masks)[0][0]), "the nearest that is allowed"
    assert refused > 0


def test_limits_end_an_episode_through_the_step() -> None:
    scorer = ToyScorer(toy_space(units=3))
    rules = EpisodeRules(Objective(scorer.space, scorer, Limits(evals=2)), registry.load("rewards", "purl"))
    env = PruningEnv(rules)
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(LimitReached):
        env.step(0)


# -- many of them ----------------------------------------------------------------------------------------------------


def vectorised(rules: EpisodeRules, n: int, ended: list[Outcome] | None = None) -> PruningVecEnv:
    return PruningVecEnv(rules, n, np.random.default_rng(0), (ended if ended is not None else []).append)


@pytest.mark.parametrize(("actions", "reward", "follow"), list(itertools.product(ACTIONS, REWARDS, (False, True))))
@pytest.mark.parametrize(("n", "observation"), [(1, "vector"), (2, "dict"), (3, "vector"), (4, "dict")])
def test_n_at_once_are_n_alone(n: int, actions: str, observation: str, reward: str, follow: bool) -> None:
    options: dict[str, Any] = {"actions": actions, "observation": observation, "shaping": 0.5}
    together = vectorised(rules_of(reward, follow=follow, **options), n)
    alone = [PruningEnv(rules_of(reward, follow=follow, **options)) for _ in range(n)]
    rng = np.random.default_rng(n)
    for _ in range(2):
        observed = together.reset()
        firsts = [env.reset()[0] for env in alone]
        equal_rows(observed, firsts)
        for step in range(6):
            actions_N = np.array([random_action(together.action_space, rng) for _ in range(n)])
            masks_NL = together.action_masks()
            for env, masks_L in zip(alone, masks_NL, strict=True):
                assert np.array_equal(env.action_masks(), masks_L)
            observed, rewards_N, done_N, infos = together.step(actions_N)
            steps = [env.step(action) for env, action in zip(alone, actions_N, strict=True)]
            assert rewards_N == pytest.approx([paid for _, paid, *_ in steps], abs=1e-6)
            assert rewards_N.dtype == np.float32
            assert done_N.tolist() == [step == 5] * n == [terminated for _, _, terminated, *_ in steps]
            if step < 5:
                equal_rows(observed, [row for row, *_ in steps])
                assert infos == [{}] * n
        equal_rows(observed, firsts)
        for info, (last, _, _, _, own) in zip(infos, steps, strict=True):
            assert info["levels"] == own["levels"]
            assert info["loss"] == pytest.approx(own["loss"])
            equal_rows({k: v[None] for k, v in info["terminal_observation"].items()}
                       if observation == "dict" else info["terminal_observation"][None], [last])  # fmt: skip


def equal_rows(observed: Any, rows: list[Any]) -> None:
    """A batch of observations holds exactly these rows."""
    if isinstance(observed, dict):
        for key, batch in observed.items():
            assert np.array_equal(batch, [row[key] for row in rows])
    else:
        assert np.array_equal(observed, rows)


@pytest.mark.parametrize("reward", REWARDS)
def test_policies_of_a_step_are_one_batch_with_the_uniform_one(reward: str) -> None:
    space = toy_space(units=6)
    scorer, function = ToyScorer(space), registry.load("rewards", reward)
    env = vectorised(EpisodeRules(Objective(space, scorer, Limits()), function, "continuous"), 4)
    rng = np.random.default_rng(0)
    known: set[Levels] = set()
    expected = []
    for _ in range(2):
        env.reset()
        for step in range(6):
            *_, infos = env.step(rng.uniform(-1, 1, (4, 1)))
            policies = [info["levels"] for info in infos] if step == 5 else env.episodes.walk.policies()
            if step == 5 or pays_every_step(function):
                new = {space.uniform(), *policies} - known
                expected.append(len(new))
                known |= new
    assert scorer.batches == expected
    assert expected[-1] == 4, "the uniform policy is not scored again on the same sample"


def test_the_end_of_episodes_is_told_as_sb3s_monitor_tells_it() -> None:
    ended: list[Outcome] = []
    env = vectorised(rules_of("purl", actions="continuous", sampler=drawn, shaping=1.0), 3, ended)
    env.reset()
    rng, total_N = np.random.default_rng(0), np.zeros(3)
    for _ in range(6):
        assert not ended
        sample = env.episodes.sample
        _, rewards_N, _, infos = env.step(rng.uniform(-1, 1, (3, 1)))
        total_N = total_N + rewards_N
    (outcome,) = ended
    assert outcome.sample == sample
    assert [info["levels"] for info in infos] == outcome.policies
    assert [info["loss"] for info in infos] == outcome.losses_N.tolist()
    assert [info["episode"]["r"] for info in infos] == pytest.approx(total_N, abs=1e-5)
    assert all(info["episode"]["l"] == 6 and info["episode"]["t"] >= 0 for info in infos)
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.episodes.sample != sample, "the next episodes have begun"


def test_sb3_contrib_is_answered_when_it_asks_for_masks() -> None:
    maskable = pytest.importorskip("sb3_contrib.common.maskable.utils", reason="needs sb3-contrib")
    env = vectorised(rules_of(), 3)
    env.reset()
    assert maskable.is_masking_supported(env)
    masks_NL = maskable.get_action_masks(env)
    assert masks_NL.shape == (3, 5)
    assert np.array_equal(masks_NL, env.action_masks())
    assert env.has_attr("action_masks")
    assert not env.has_attr("no_such_thing")
    assert [row.tolist() for row in env.env_method("action_masks", indices=[2, 0])] == masks_NL[[2, 0]].tolist()
    assert env.get_attr("num_envs", indices=1) == [3]


def test_vectorised_episodes_are_drawn_as_bars() -> None:
    env = vectorised(rules_of(), 2)
    env.reset()
    env.step(np.array([2, 0]))
    assert str(env.render()).split() == ["0.attention", "█" * 10 + "·" * 10, "50%"]


def test_an_action_outside_the_space_is_refused_for_any_of_them() -> None:
    env = vectorised(rules_of(), 2)
    env.reset()
    with pytest.raises(InvalidAction, match=r"\[0, 5\] is outside the space"):
        env.step(np.array([0, 5]))


def test_all_that_a_user_may_call_wrongly_is_a_sentence(small: dict[str, Any]) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"actions": "both"}, "actions: Input should be 'discrete', 'continuous' or 'thresholds' (got 'both')"),
        ({"observation": "image"}, "observation: Input should be 'vector' or 'dict' (got 'image')"),
        ({"reference": "best"}, "reference: Input should be 'uniform' or 'additive' (got 'best')"),
        ({"reference": "additive", "sensitivities": False}, "sensitivities=False"),
        ({"shaping": 1.0, "sensitivities": False}, "sensitivities=False"),
        ({"reward": "acm"}, "Did you mean 'amc'"),
        ({"budgets": {"params": "half"}}, "METRIC=VALUE"),
        ({"levls": 3}, "Did you mean 'levels'"),
    ]
    for options, seen in wrong:
        with pytest.raises(autoprune.UserError) as raised:
            autoprune.make_env(**small | options)
        assert seen in str(raised.value)


def test_policies_are_filled_up_to_the_budget() -> None:
    """What is shown at the end is what was scored."""
    space = toy_space(units=6)
    env = PruningEnv(rules_of(space=space), "ansi")
    env.reset(seed=0)
    for _ in space.units:
        *_, info = env.step(np.int64(4))
    policy: Levels = info["levels"]
    chosen = (4,) * 6
    assert space.repair(policy) == policy != chosen
    assert env.levels == policy
    shown = [int(row.split()[-1].rstrip("%")) for row in str(env.render()).splitlines()]
    assert shown == [
        100 * unit.levels[level].kept // unit.groups for unit, level in zip(space.units, policy, strict=True)
    ]


def test_a_step_needs_an_episode() -> None:
    env = PruningEnv(rules_of())
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        env.step(np.int64(0))
    *_, last = played(env, np.random.default_rng(0))
    assert last[2], "terminated"
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        env.step(np.int64(0))
