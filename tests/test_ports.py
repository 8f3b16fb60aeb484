"""Parts derive from their ports; a user's own that does not is given the port's defaults, in one place."""

import ast
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune import ports, registry, search
from autoprune.agents.evolution import Evolution
from autoprune.calibration.losses import KullbackLeibler, is_linear
from autoprune.errors import UserError
from autoprune.level import group_levels
from autoprune.ports.adapting import as_port
from autoprune.ports.agent import Agent, load_agent
from autoprune.ports.criterion import Criterion, load_criterion
from autoprune.ports.exporter import Exporter, load_exporter
from autoprune.ports.loss import Loss, load_loss
from autoprune.ports.metric import Metric, load_metric
from autoprune.space import Unit
from autoprune.study import make_agent
from autoprune.workload import Workload

ROOT = Path(__file__).parent.parent
PORTS: dict[str, tuple[type, Callable[[str], Any]]] = {
    "agents": (Agent, load_agent),
    "budgets": (Metric, load_metric),
    "criteria": (Criterion, load_criterion),
    "exporters": (Exporter, load_exporter),
    "losses": (Loss, load_loss),
}
UNIT, WORKLOAD = Unit("0.mlp", "mlp", 0, 96, group_levels(96, (96, 48, 0)), 192), Workload(32)
OWN = """
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import BaseModel

from autoprune.agents.evolution import Evolution
from autoprune.ports import Agent, Criterion, Exporter, Loss, Metric

@dataclass
class Climb:
    '''An agent as the guide has it.'''
    steps: int = 3
    masks = False

    def search(self, objective, rng):
        best = objective.space.uniform()
        for _ in range(self.steps):
            candidates = [best, *(objective.space.mutate(best, rng) for _ in range(4))]
            best = candidates[objective(candidates, tokens=256).argmin()]

class Saves(Climb):
    alone = True

    def save(self, directory):
        (directory / "learned.txt").write_text(str(self.steps))

    def front(self, objective):
        return [objective.space.uniform()]

class Settings(BaseModel):
    steps: int = 3

    def search(self, objective, rng):
        objective([objective.space.uniform()])

@dataclass(frozen=True, slots=True)
class Slots:
    steps: "Unknown" = 3

    def search(self, objective, rng):
        objective([objective.space.uniform()])

class Idle:
    pass

class Derived(Agent):
    pass

def factory(steps: int = 2):
    return Saves(steps)

small = partial(Evolution, offspring=3)
number = 3

class Squared:
    def prepare(self, logits_BTV, labels_BT):
        return (logits_BTV.float(),)

    def measure(self, logits_BTV, reference):
        return (logits_BTV.float() - reference[0]).square().mean((1, 2))

class Zero(Squared):
    zero_at_dense = True

class Backwards:
    def order(self, weight_OD, moments_DD, groups):
        return torch.arange(groups).flip(0)

def joules(unit, kept, workload):
    return 2.0 * unit.params(kept)

def fixed(unit, kept, workload):
    return unit.params(kept)

fixed.fixed = 7.5

class Watts:
    measure = "W"
    peak = True

    def __call__(self, unit, kept, workload):
        return kept

    @property
    def notice(self):
        return "measured"

watts = Watts()

class Kept(Metric):
    measure = "groups"

    def __call__(self, unit, kept, workload):
        return kept
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "own.py"


@pytest.mark.parametrize("kind", PORTS)
def test_every_part_has_its_port(kind: str) -> None:
    port, load = PORTS[kind]
    for name in registry.names(kind):
        part = load(name)
        assert issubclass(part if isinstance(part, type) else type(part), port), name


@pytest.mark.parametrize("kind", PORTS)
def test_ports_say_what_each_member_is(kind: str) -> None:
    port, _ = PORTS[kind]
    assert port.__doc__
    source = ast.parse(Path(sys.modules[port.__module__].__file__ or "").read_text(encoding="utf-8"))
    body = next(node.body for node in source.body if isinstance(node, ast.ClassDef) and node.name == port.__name__)
    for node, behind in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef):
            assert ast.get_docstring(node), node.name
        elif isinstance(node, ast.AnnAssign):
            assert isinstance(behind, ast.Expr), ast.unparse(node)


def test_no_feature_is_looked_for_elsewhere() -> None:
    """`getattr` and `hasattr` of a port's member, or of a mark that a decorator sets, stand in adapting.py alone."""
    members = {name for port, _ in PORTS.values() for name in vars(port) if not name.startswith("_")}
    members |= {name for name in vars(ports.Scorer) if not name.startswith("_")} | {"every_step", "of_network"}
    found = []
    for path in [path for folder in ("autoprune", "agents", "envs") for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                name = node.args[1]
                if isinstance(name, ast.Constant) and name.value in members:
                    found.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")
    assert found == []


def test_ports_are_cheap_to_import() -> None:
    code = "import autoprune.ports as p, sys; p.Agent, p.Loss; print(*{'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
    for name in ports.__all__:
        assert getattr(ports, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = ports.nothing


# -- agents ----------------------------------------------------------------------------------------------------------


def test_an_agent_that_derives_from_nothing(own: str, quick: dict[str, Any], tmp_path: Path) -> None:
    plain, saves = load_agent(f"{own}:Climb"), load_agent(f"{own}:Saves")
    assert issubclass(plain, Agent)
    assert load_agent(f"{own}:Climb") is plain
    assert (plain.__name__, plain.__doc__, plain.alone, saves.alone) == ("Climb", "An agent as the guide has it.", 0, 1)
    assert plain().front(None) == ()  # type: ignore[arg-type]
    settings = {**quick, "agent": f"{own}:Saves", "agent_options": {"steps": 2}, "max_evals": 20}
    result = search(**settings, out=tmp_path / "run")
    assert (tmp_path / "run" / "learned.txt").read_text() == "2"
    assert len(result.front) == 1
    again = search(**{**settings, "agent": f"{own}:factory"}, out=tmp_path / "again")
    assert (tmp_path / "again" / "learned.txt").read_text() == "2"
    assert again.policy.units == result.policy.units


@pytest.mark.parametrize("name", ["Settings", "Slots"])
def test_agents_of_other_kinds(own: str, name: str) -> None:
    """With another metaclass, with slots, with an annotation that cannot be read."""
    agent = make_agent(f"{own}:{name}", {"steps": 5})
    assert isinstance(agent, Agent)
    assert agent.steps == 5  # type: ignore[attr-defined]
    agent.save(Path("nowhere"))


def test_functions_that_make_agents(own: str) -> None:
    assert isinstance(load_agent(f"{own}:factory")(steps=5), Agent)  # type: ignore[call-arg]
    made = load_agent(f"{own}:small")()
    assert made == Evolution(offspring=3)


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("Idle", "the agent 'own.py:Idle' has no method 'search', which it must have"),
        ("Derived", "the agent 'own.py:Derived' has no method 'search'"),
        ("number", "the agent 'own.py:number' is a int and cannot be called"),
    ],
)
def test_what_is_no_agent(own: str, name: str, seen: str) -> None:
    with pytest.raises(UserError, match=seen):
        load_agent(f"{own}:{name}")


# -- losses and criteria ---------------------------------------------------------------------------------------------


def test_a_loss_that_derives_from_nothing(own: str, quick: dict[str, Any], tmp_path: Path) -> None:
    loss = load_loss(f"{own}:Squared")
    assert isinstance(loss, Loss)
    assert not is_linear(loss)
    assert not loss.zero_at_dense
    assert load_loss(f"{own}:Zero").zero_at_dense
    result = search(**{**quick, "loss": f"{own}:Squared", "max_evals": 6, "agent": "random"}, out=tmp_path / "run")
    assert result.table[0].validation_loss == pytest.approx(0, abs=1e-9)
    with pytest.raises(UserError, match=r"the loss 'own\.py:Backwards' has no method 'measure'"):
        load_loss(f"{own}:Backwards")


def test_linear_losses_are_known_as_before() -> None:
    class Measures(KullbackLeibler):
        def measure(self, logits_BTV: torch.Tensor, reference: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return super().measure(logits_BTV, reference) * 2

    assert is_linear(load_loss("kl"))
    assert is_linear(load_loss("ce"))
    assert not is_linear(load_loss("error"))
    assert not is_linear(Measures())


def test_a_criterion_that_derives_from_nothing(own: str) -> None:
    criterion = load_criterion(f"{own}:Backwards")
    assert isinstance(criterion, Criterion)
    assert (criterion.reconstructs, tuple(criterion.needs)) == (False, ())
    assert criterion.order(torch.zeros(2, 4), torch.eye(4), 4).tolist() == [3, 2, 1, 0]


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_that_derive_from_nothing(own: str, tmp_path: Path) -> None:
    plain = load_metric(f"{own}:joules")
    # it takes groups kept, as metrics of earlier versions do
    assert plain(UNIT, 48, WORKLOAD) == 2 * UNIT.params(48)  # type: ignore[arg-type]
    assert (plain.fixed, plain.measure, plain.peak, plain.notice) == (0, None, False, None)
    assert plain.described.startswith("'joules' (own.py, line ")
    plain.save(tmp_path)
    assert load_metric(f"{own}:fixed").fixed == 7.5
    watts = load_metric(f"{own}:watts")
    assert (watts.fixed, watts.measure, watts.peak, watts.notice) == (0, "W", True, "measured")
    assert watts.described == "'Watts'"
    kept = load_metric(f"{own}:Kept")
    assert (kept(UNIT, 3, WORKLOAD), kept.measure, kept.fixed) == (3, "groups", 0)  # type: ignore[arg-type]  # likewise


def test_an_object_without_what_its_port_demands() -> None:
    with pytest.raises(UserError, match="has no method 'search', which the port Agent demands"):
        as_port(Agent, partial(np.sum))
