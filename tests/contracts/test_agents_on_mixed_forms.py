"""Every agent searches a space whose units have levels of two forms, within the budgets, and finds the better form."""

from contextlib import suppress

import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune import registry
from autoprune.errors import LimitReached
from autoprune.level import GROUPS
from autoprune.objective import Limits, Objective
from autoprune.ports.agent import load_agent
from autoprune.space import Proposal
from autoprune.testing.agents import check_limits
from autoprune.testing.toys import ToyScorer, toy_statistics
from tests.contracts.test_agents import LEARNING, OPTIONS, SLOW
from tests.mixed_space import mixed_space

AGENTS = [name for name in registry.names("agents") if not load_agent(name).masks]
BOTH = {"params": 0.5, "latency": 0.75}


class MixedScorer(ToyScorer):
    """Single weights leave with less of a loss than groups of as many weights."""

    def depth(self, policy: Proposal) -> NDArray[np.float64]:
        """Share that is gone of each unit, `[U]`; of single weights less is felt."""
        levels = self.space.levels_of(policy)
        return np.array([(1 - level.density) * (1.0 if level.form == GROUPS else 0.5) for level in levels])


@pytest.mark.parametrize("budgets", [BOTH, {"params": 0.4}, {"latency": 0.6}], ids=["both", "params", "latency"])
@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_searches_levels_of_two_forms(agent: str, budgets: dict[str, float]) -> None:
    if agent == "maskable-ppo":
        pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    if agent in LEARNING and budgets != BOTH:
        pytest.skip("learning agents walk in one environment: one mix of budgets shows it")
    tokens = 32 * (100 if agent in LEARNING else SLOW.get(agent, 300))
    scorer = MixedScorer(mixed_space(3, budgets=budgets), seed=1)
    objective = Objective(scorer.space, scorer, Limits(tokens=tokens), statistics=toy_statistics(scorer.space))
    with suppress(LimitReached):
        load_agent(agent)(**OPTIONS.get(agent, {})).search(objective, np.random.default_rng(0))
    check_limits(objective, tokens)
    if agent in ("evolution", "additive", "greedy", "tpe"):
        assert scorer.true_loss(objective.best) <= scorer.true_loss(scorer.space.uniform()), agent


def test_evolution_finds_that_single_weights_are_better() -> None:
    scorer = MixedScorer(mixed_space(3, budgets={"params": 0.5}), seed=1)
    objective = Objective(scorer.space, scorer, Limits(tokens=32 * 500))
    with suppress(LimitReached):
        load_agent("evolution")(**OPTIONS["evolution"]).search(objective, np.random.default_rng(0))
    forms = [level.form for level in scorer.space.levels_of(objective.best) if 0 < level.density < 1]
    assert sum(form != GROUPS for form in forms) > len(forms) / 2, forms
