"""The observation table: documented as it is, named once, split without rest, and finite for any network."""

import re
import warnings
from dataclasses import replace
from itertools import product

import gymnasium
import numpy as np
import pytest

from autoprune.envs.episodes import EpisodeRules, Episodes
from autoprune.envs.observation import GROUPS, HIGH_F, LOW_F, NAMES, TABLE, Observer, columns_of, split, standard
from autoprune.envs.pruning import PruningEnv
from autoprune.envs.rewards.amc import amc
from autoprune.envs.rewards.purl import purl
from autoprune.envs.sensitivity import measure
from autoprune.envs.walk import Walk
from autoprune.level import group_levels
from autoprune.objective import Limits, Objective
from autoprune.space import SearchSpace, Unit
from autoprune.testing.toys import ToyScorer, toy_rules, toy_space, toy_statistics
from autoprune.unit_statistics import UnitStatistics


def shown(rules: EpisodeRules, *levels: int) -> dict[str, float]:
    """What is observed after some levels, by name."""
    episodes = Episodes(rules)
    episodes.begin(np.random.default_rng(0))
    for level in levels:
        episodes.step(np.array([level]))
    return dict(zip(NAMES, episodes.observe()[0].tolist(), strict=True))


# -- the table -------------------------------------------------------------------------------------------------------


def test_the_docstring_holds_exactly_the_table() -> None:
    rows = re.findall(
        r"^    \| (\d+) \| (.+?) \| (.+) \| (.+?) \| (\S+) to (\S+) \| (\w+) \|$", PruningEnv.__doc__, re.M
    )
    documented = [
        (int(i), name, meaning, unit, float(low), float(high), group)
        for i, name, meaning, unit, low, high, group in rows
    ]
    assert documented == [
        (i, row.name, row.meaning, row.unit, row.low, row.high, row.group) for i, row in enumerate(TABLE)
    ]


def test_names_are_given_once() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(TABLE) == len(LOW_F) == len(HIGH_F)
    assert all(re.fullmatch(r"[a-z_0-9]+", name) for name in NAMES)
    assert set(GROUPS) == {"layer", "sensitivity", "budget", "episode"}


def test_groups_cover_the_vector_exactly() -> None:
    columns = [i for group in GROUPS for i in columns_of(group)]
    assert sorted(columns) == list(range(len(TABLE)))
    vector_F = np.arange(len(TABLE), dtype=np.float32)
    parts = split(vector_F)
    assert np.array_equal(np.concatenate([parts[group] for group in GROUPS]), vector_F[columns])
    assert {group: len(part) for group, part in parts.items()} == {g: len(columns_of(g)) for g in GROUPS}


def test_the_dict_observation_is_the_vector_in_parts() -> None:
    scorer = ToyScorer(toy_space(units=4))
    vector, parts = (PruningEnv(toy_rules(amc, scorer, observation=kind)) for kind in ("vector", "dict"))
    assert isinstance(parts.observation_space, gymnasium.spaces.Dict)
    for name, box in parts.observation_space.items():
        assert np.array_equal(box.low, LOW_F[columns_of(name)])  # type: ignore[attr-defined]
    seen_F, seen = vector.reset(seed=0)[0], parts.reset(seed=0)[0]
    for _ in range(4):
        assert all(np.array_equal(seen[name], seen_F[columns_of(name)]) for name in GROUPS)
        seen_F, seen = vector.step(2)[0], parts.step(2)[0]


# -- what stands in it -----------------------------------------------------------------------------------------------


def test_positions_kinds_and_shapes() -> None:
    space = toy_space(units=8)
    seen = shown(toy_rules(amc, ToyScorer(space)), 2, 2, 2)
    assert (seen["position"], seen["depth"]) == (3 / 8, 1 / 4)
    assert seen["depth_sin_1"] == pytest.approx(1)
    assert (seen["attention"], seen["mlp"]) == (0, 1)
    assert seen["groups"] == pytest.approx(2 / 20)
    assert seen["group_params"] == pytest.approx(np.log2(space.units[3].group_params) / 30)
    assert seen["levels"] == 1
    params = [unit.params(unit.groups) for unit in space.units]
    assert seen["params_share"] == pytest.approx(params[3] / sum(params))


def test_budgets_as_they_are_spent() -> None:
    space = toy_space(units=4, budget=0.5)
    cost_UL, bound = space.costs["params"], space.budgets["params"]
    rules = toy_rules(amc, ToyScorer(space))
    start = shown(rules)
    assert (start["used"], start["to_come"], start["previous"]) == (0, 1, 1)
    assert start["pace"] == pytest.approx(0.5)
    seen = shown(rules, 1, 3)
    spent = cost_UL[0, 1] + cost_UL[1, 3]
    assert seen["used"] == pytest.approx(spent / bound)
    assert seen["room"] == pytest.approx((bound - spent) / bound)
    assert seen["to_come"] == pytest.approx(cost_UL[2:, 0].sum() / cost_UL[:, 0].sum())
    assert seen["pace"] == pytest.approx(min(1, (bound - spent) / cost_UL[2:, 0].sum()))
    assert seen["previous"] == 0.25
    walk = Walk(space)
    walk.set(np.array([1]))
    walk.set(np.array([3]))
    kept = walk.density_UL[2][walk.allowed()[0]]
    assert (seen["sparsest"], seen["densest"]) == (kept.min(), kept.max())


def test_the_strictest_of_several_budgets_is_shown() -> None:
    space = toy_space(units=4, budget=0.9, latency=0.3)
    rules = toy_rules(amc, ToyScorer(space))
    start, seen = shown(rules), shown(rules, 2)
    assert start["pace"] == pytest.approx(0.3)
    assert seen["used"] == pytest.approx(space.costs["latency"][0, 2] / space.budgets["latency"])


def test_sensitivities_rank_the_units() -> None:
    scorer = ToyScorer(toy_space(units=6), noise=0, pairs=0)
    rules = toy_rules(amc, scorer)
    column_U = [shown(rules, *[2] * u)["sensitivity_3"] for u in range(6)]
    assert np.argsort(column_U).tolist() == np.argsort(scorer.importance_U).tolist()
    assert np.mean(column_U) == pytest.approx(0, abs=0.05)
    unknown = shown(replace(rules, added_UL=None))
    assert [unknown[f"sensitivity_{i}"] for i in (1, 2, 3)] == [0, 0, 0]


def test_the_reference_is_shown_and_is_uniform_where_there_is_none() -> None:
    space = toy_space(units=4)
    assert shown(toy_rules(amc, ToyScorer(space), (3, 1, 2, 2)), 2)["reference"] == 0.75
    assert shown(toy_rules(amc, ToyScorer(space)), 2)["reference"] == 0.5


def test_the_running_loss_is_shown_where_rewards_are_dense() -> None:
    scorer = ToyScorer(toy_space(units=4), noise=0)
    uniform = scorer.true_loss(scorer.space.uniform())
    seen = shown(toy_rules(purl, scorer), 2, 3)
    assert seen["loss"] == pytest.approx(min(1, scorer.true_loss((2, 3, 0, 0)) / uniform / 4))
    assert shown(toy_rules(purl, scorer))["loss"] == 0
    assert shown(toy_rules(amc, scorer), 2, 3)["loss"] == 0


def test_output_errors_are_interpolated_at_the_shares_kept() -> None:
    space = toy_space(units=2, levels=9)
    seen = shown(toy_rules(amc, ToyScorer(space)))
    assert [seen[f"error_{percent}"] for percent in (75, 50, 25)] == pytest.approx([1 / 16, 1 / 4, 9 / 16])


# -- any network -----------------------------------------------------------------------------------------------------

ZERO = UnitStatistics(0.0, 0.0, 3.0, 0.0, 0.0, 0.0, (0.0, 0.0, 0.0, 0.0, 0.0))
HUGE = UnitStatistics(1e30, 1e9, 1e12, 1.0, 1e-30, 1.0, (0.0, 1.0, 1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "statistics", [[ZERO] * 6, [HUGE] * 6, [ZERO, HUGE] * 3, []], ids=["constant", "huge", "both", "unknown"]
)
@pytest.mark.parametrize("added", [None, 0.0, 1e-9, 100.0])
def test_nothing_that_is_constant_or_extreme_makes_it_other_than_finite(
    statistics: list[UnitStatistics], added: float | None
) -> None:
    space = toy_space(units=6)
    objective = Objective(space, ToyScorer(space), Limits(), statistics=statistics)
    added_UL = None if added is None else np.full((6, 5), added)
    observer, walk = Observer(objective, added_UL, space.uniform()), Walk(space, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(6):
            observed_NF = observer.observe(walk, np.array([0.0, 1e6]))
            assert np.isfinite(observed_NF).all()
            assert np.all((observed_NF >= LOW_F) & (observed_NF <= HIGH_F))
            walk.set(np.array([2, 4]))


def test_features_that_are_equal_for_all_units_are_0() -> None:
    assert standard(np.full(5, 3.7)).tolist() == [0] * 5
    assert np.abs(standard(np.array([0.0, 0.0, 0.0, 1e9]))).max() <= 1
    scaled = standard(np.array([1.0, 2.0, 3.0])), standard(np.array([10.0, 20.0, 30.0]))
    assert scaled[0] == pytest.approx(scaled[1])


@pytest.mark.parametrize(("follow", "reward", "kind"), list(product([False, True], [amc, purl], ["attention", "mlp"])))
def test_a_single_unit_is_a_whole_episode(follow: bool, reward: object, kind: str) -> None:
    unit = Unit("0." + kind, kind, 0, 4, group_levels(4, (4, 3, 2, 1, 0)), 5)
    space = SearchSpace([unit], {"params": [[20, 15, 10, 5, 0]]}, {"params": 10})
    rules = toy_rules(reward, ToyScorer(space), space.uniform() if follow else None)  # type: ignore[arg-type]
    env = PruningEnv(rules)
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    last, paid, terminated, _, info = env.step(np.int64(2))
    assert env.observation_space.contains(last)
    assert terminated
    assert np.isfinite(paid)
    assert info["levels"] == (2,)


def test_units_of_other_kinds_and_few_levels_have_their_place() -> None:
    units = [
        Unit("0.expert", "expert", 0, 1, group_levels(1, (1,)), 5),
        Unit("0.mlp", "mlp", 0, 4, group_levels(4, (4, 2, 0)), 1 << 31),
    ]
    space = SearchSpace(units, {"params": [[5.0], [4.0 * 2**31, 2.0 * 2**31, 0.0]]}, {"params": 2.0**32 + 5})
    objective = Objective(space, ToyScorer(toy_space(units=2)), Limits(), statistics=toy_statistics(space))
    observer = Observer(objective, np.zeros((2, 3)), space.uniform())
    seen = dict(zip(NAMES, observer.observe(Walk(space), np.zeros(1))[0], strict=True))
    assert (seen["attention"], seen["mlp"]) == (0, 0)
    assert seen["levels"] == pytest.approx(1 / 3)
    assert seen["sparsest"] == seen["densest"] == 1


def test_a_network_twice_as_large_looks_alike() -> None:
    """Scores of one scale: what one network taught can be used on another."""
    space = toy_space(units=6)
    larger = [replace(one, weight_rms=100 * one.weight_rms, activation_rms=0.01 * one.activation_rms)
              for one in toy_statistics(space)]  # fmt: skip
    rows = []
    for statistics, losses in ((toy_statistics(space), 1.0), (larger, 7.0)):
        scorer = ToyScorer(space, noise=0, pairs=0)
        scorer.importance_U = scorer.importance_U * losses
        objective = Objective(space, scorer, Limits(), statistics=statistics)
        rows.append(Observer(objective, measure(objective, range(1)), space.uniform()).static_UF)
    assert rows[0] == pytest.approx(rows[1], abs=1e-6)
