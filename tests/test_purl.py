"""The agent `purl`: magnitude thresholds as actions, budgets by repair at the end, dense rewards and what they cost."""

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import autoprune
from autoprune.agents.purl import PuRL
from autoprune.envs.episodes import EpisodeRules, Episodes
from autoprune.envs.pruning import PruningEnv
from autoprune.envs.rewards.options import load_reward
from autoprune.envs.rewards.record import RewardRecord, every_step
from autoprune.envs.thresholds import THRESHOLDS, levels_at, share_kept
from autoprune.errors import LimitReached, UserError
from autoprune.levels.measure_unit import _magnitudes
from autoprune.objective import Limits, Objective
from autoprune.study import make_agent
from autoprune.testing import check_env
from autoprune.testing.toys import ToyScorer, toy_rules, toy_space, toy_statistics

QUICK: dict[str, Any] = {"tokens": 32, "race_tokens": 32, "net_arch": (8,), "gradient_steps": 1}


def rules_of(reward: str = "purl", **options: Any) -> EpisodeRules:
    return toy_rules(load_reward(reward), ToyScorer(toy_space(units=4)), actions="thresholds", **options)


def test_the_actions_are_the_papers() -> None:
    assert THRESHOLDS[0] == 0
    assert THRESHOLDS[-1] == 2.2
    assert len(THRESHOLDS) == 23
    assert rules_of().action_space().n == 23  # type: ignore[attr-defined]


def test_magnitudes_count_weights_in_standard_deviations() -> None:
    weights = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    shares = _magnitudes(weights)
    assert len(shares) == 40
    for k in (1, 10, 22):
        assert shares[k - 1] == pytest.approx(math.erf(k / 10 / math.sqrt(2)), abs=5e-3)
    assert _magnitudes(torch.ones(5, dtype=torch.float64)) == ()
    known = replace(toy_statistics(toy_space(units=1))[0], magnitudes=shares)
    assert share_kept(known, 0.0) == 1.0
    assert share_kept(known, 1.05) == pytest.approx(1 - (shares[9] + shares[10]) / 2)
    assert share_kept(None, 1.0) == pytest.approx(0.3173, abs=1e-4)


def test_a_threshold_is_the_level_of_the_nearest_density() -> None:
    space = toy_space(units=2, levels=5)  # densities 1, 0.75, 0.5, 0.25, 0
    uneven = tuple(min(1.0, 0.05 * k) for k in range(1, 41))
    statistics = [replace(one, magnitudes=uneven) for one in toy_statistics(space)]
    objective = Objective(space, ToyScorer(space), Limits(), statistics=[statistics[0], toy_statistics(space)[1]])
    found_UT = levels_at(objective, (0.0, 0.4, 1.0, 2.2))
    assert found_UT[0].tolist() == [0, 1, 2, 4]  # 5 % for each tenth
    assert found_UT[1].tolist() == [0, 1, 3, 4]  # a normal distribution: 69, 32 and 3 % stay


def test_the_contract_of_the_environment() -> None:
    check_env(lambda: PruningEnv(rules_of()))
    check_env(lambda: PruningEnv(rules_of("purl-end", observation="dict")))


def test_thresholds_are_free_and_the_end_is_repaired() -> None:
    rules = rules_of()
    space = rules.objective.space
    episodes = Episodes(rules)
    episodes.begin(np.random.default_rng(0))
    for _ in range(4):
        assert episodes.masks().all()
        episodes.step(np.array([0]))  # everything stays
    assert episodes.walk.chosen() == [space.dense]
    assert episodes.outcome is not None
    assert episodes.outcome.policies == [space.repair(space.dense)]
    assert space.feasible(episodes.outcome.policies[0])
    assert {policy for policy, _, _ in rules.objective.archive()} == {space.uniform(), space.repair(space.dense)}


def test_the_last_reward_sees_the_cost_that_was_chosen() -> None:
    seen: list[RewardRecord] = []

    @every_step
    def watching(record: RewardRecord) -> float:
        seen.append(record)
        return 0.0

    rules = toy_rules(watching, ToyScorer(toy_space(units=4)), actions="thresholds")
    episodes = Episodes(rules)
    for action, cost in ((0, 1.0), (22, 0.0)):
        episodes.begin(np.random.default_rng(0))
        for _ in range(4):
            episodes.step(np.array([action]))
        assert seen[-1].done
        assert seen[-1].costs["params"] == cost
        assert episodes.outcome is not None
        assert seen[-1].loss == episodes.outcome.losses_N[0], "the loss is of the policy that was scored"


@pytest.mark.parametrize(("reward", "scores"), [("purl", 5), ("purl-end", 2)])
def test_dense_rewards_are_charged(reward: str, scores: int) -> None:
    """The uniform policy and the end; of a dense reward also the three partial policies."""
    scorer = ToyScorer(toy_space(units=4))
    objective = Objective(scorer.space, scorer, Limits())
    rules = EpisodeRules(objective, load_reward(reward), "thresholds", lambda _: [0, 1])
    episodes = Episodes(rules)
    episodes.begin(np.random.default_rng(0))
    for action in (3, 9, 12, 20):
        episodes.step(np.array([action]))
    assert objective.spent.tokens == scores * 2 * scorer.tokens_per_sequence


def test_it_ends_after_its_episodes() -> None:
    ended = []
    for episodes in (3, 6):
        scorer = ToyScorer(toy_space(units=4))
        objective = Objective(scorer.space, scorer, Limits(), statistics=toy_statistics(scorer.space))
        agent = PuRL(**QUICK, max_episodes=episodes)
        with suppress(LimitReached):
            agent.search(objective, np.random.default_rng(0))
        ended.append(objective.spent.evals)
        assert objective.space.feasible(objective.best)
        assert [decay.progress for decay in agent.decays] == [1.0] * len(agent.decays)
    assert ended[0] < ended[1]


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match=r"agent_options\.thresholds of the agent 'purl': .*ascend"):
        make_agent("purl", {"thresholds": [0.5, 0.2]})
    with pytest.raises(UserError, match=r"agent_options\.max_episodes of the agent 'purl': .*greater than 0"):
        make_agent("purl", {"max_episodes": 0})
    with pytest.raises(UserError, match="the reward 'purl' has no option 'scale'"):
        make_agent("purl", {"reward_options": {"scale": 2}})


def test_it_searches_single_weights(quick: dict[str, Any], tmp_path: Any) -> None:
    own = quick | {"forms": "sparse", "budgets": {"params": 0.4}, "criterion": "magnitude", "max_evals": 200}
    result = autoprune.search(
        **own, agent="purl", agent_options=QUICK | {"net_arch": [8], "max_episodes": 4}, out=tmp_path / "run"
    )
    assert {unit.form for unit in result.policy.units} <= {"sparse", "groups"}
    assert "sparse" in {unit.form for unit in result.policy.units}
    assert result.policy.costs["params"].policy <= result.policy.costs["params"].budget  # type: ignore[operator]
    assert all(one.magnitudes for one in result.assembly.store.statistics)
    (tmp_path / "run" / "result.json").unlink()
    assert autoprune.resume(tmp_path / "run").policy.units == result.policy.units
