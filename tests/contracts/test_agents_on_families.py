"""Every registered agent on every registered family: a short search, its record and its validation, on a tiny network.

The default agent besides on every type and variant that there is a tiny network of.
"""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoprune import registry, study
from autoprune.assembly import Assembly, assemble
from autoprune.callbacks import SILENT
from autoprune.config import SearchConfig, load_config
from autoprune.errors import UserError
from autoprune.ports.agent import load_agent
from autoprune.provenance import proposal_of
from autoprune.result import SearchResult
from tests import families, image_families, tiny_searches
from tests.contracts.test_ends import QUICK
from tests.watchdog import within

AGENTS = registry.names("agents")
DEFAULT = SearchConfig().agent
EVALS = 48  # of which the default agent spends some on slopes

Assembled = Callable[[str], Assembly]


@pytest.fixture(scope="module")
def assembled(text_file: str, tmp_path_factory: pytest.TempPathFactory) -> Assembled:
    """A tiny network with its level store, made once."""
    made: dict[str, Assembly] = {}

    def of(name: str) -> Assembly:
        if name not in made:
            text = name in families.names()
            shape = {"num_hidden_layers": 2} if name in tiny_searches.networks().values() and text else {}
            settings = tiny_searches.settings(name, tmp_path_factory.mktemp("networks"), text_file, **shape)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what transformers thinks of sizes so small
                made[name] = assemble(load_config(None, settings), masks=text)
        return made[name]

    return of


def searched(assembly: Assembly, agent: str, out: Path) -> SearchResult:
    changes = {"agent": agent, "agent_options": QUICK.get(agent, {}), "max_evals": EVALS}
    scorer = study.scorer_of(assembly, None)
    with within(60):
        return study.search_on(assembly, scorer, assembly.config.model_copy(update=changes), out, SILENT)


def check(result: SearchResult) -> None:
    """What is found is within the budgets, and its losses on both splits are numbers."""
    assert result.assembly.space.feasible(proposal_of(result.assembly, result.policy))
    assert all(math.isfinite(row.validation_loss) for row in result.table)
    assert math.isfinite(result.history[-1][2])
    assert 0 < result.spent.evals <= EVALS
    assert (result.path / "policy.json").is_file()


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("family", registry.names("families"))
def test_every_agent_on_every_family(family: str, agent: str, assembled: Assembled, tmp_path: Path) -> None:
    if agent == "maskable-ppo":
        pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    assembly = assembled(tiny_searches.networks()[family])
    if assembly.loaded.family.task == "images" and load_agent(agent).masks:
        with pytest.raises(UserError, match="language models alone"):
            assemble(assembly.config, masks=True)
        return
    check(searched(assembly, agent, tmp_path / "run"))


@pytest.mark.parametrize("name", [*families.names(), *image_families.names()])
def test_the_default_agent_on_every_type(name: str, assembled: Assembled, tmp_path: Path) -> None:
    check(searched(assembled(name), DEFAULT, tmp_path / "run"))


def test_the_default_agent_has_slopes_where_it_can(assembled: Assembled) -> None:
    """Else the tests above would not cover them."""
    for name in ("llama", "gpt2", "opt"):
        assembly = assembled(name)
        scorer = study.scorer_of(assembly, None)
        slopes_UL: Any = scorer.slopes(assembly.space.uniform(), [0])
        assert math.isfinite(slopes_UL[slopes_UL == slopes_UL].sum())
        assert scorer.slope_passes <= EVALS / 4
