"""Parts as objects in Python: classes, functions and instances, from a notebook's `__main__` too."""

import dataclasses
import functools
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoprune
from autoprune import UserError, live, objects, registry
from autoprune.agents.evolution import Evolution
from autoprune.calibration.losses import KullbackLeibler
from autoprune.config import load_config
from autoprune.envs.rewards.amc import amc
from autoprune.fingerprints import fingerprint
from tests.conftest import QUICK

NOTEBOOK = '''
import dataclasses

FACTOR = 1.0


@dataclasses.dataclass
class Hill:
    steps: int = 3

    def search(self, objective, rng):
        best = objective.space.uniform()
        for _ in range(self.steps):
            found = [best, objective.space.mutate(best, rng)]
            best = found[objective(found).argmin()]


class Counting:
    """An agent that is no dataclass, and that changes itself while it searches."""

    masks = False

    def __init__(self, count):
        self.count = count

    def search(self, objective, rng):
        for _ in range(self.count):
            objective([objective.space.sample(rng)])
        self.count = 0


def joules(unit, level, workload):
    return FACTOR * level.kept


def careful(record):
    return record.dense_loss - record.loss


class Largest:
    reconstructs = False

    def order(self, weight, moments, groups):
        return weight.abs().sum(0).view(groups, -1).sum(1).argsort(descending=True)


class Squares:
    """A loss with a setting of its own."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def prepare(self, logits, labels):
        return (logits,)

    def measure(self, logits, reference):
        return self.scale * (logits - reference[0]).square().mean((1, 2))
'''


@pytest.fixture(scope="module")
def cell() -> types.SimpleNamespace:
    """What a cell of a notebook defines: nothing of it can be imported."""
    return defined(NOTEBOOK)


def defined(code: str) -> types.SimpleNamespace:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(code, space)
    return types.SimpleNamespace(**space)


def refused(**settings: Any) -> str:
    """What the settings get."""
    with pytest.raises(UserError) as caught:
        autoprune.search(**settings)
    return str(caught.value)


# -- a search -----------------------------------------------------------------------------------------------------


def test_an_instance_that_is_changed_afterwards_changes_no_run(
    cell: types.SimpleNamespace, quick: dict[str, Any], tmp_path: Path
) -> None:
    agent = cell.Counting(6)
    run = autoprune.search(**quick | {"agent": agent, "max_evals": 2}, out=tmp_path / "run")
    agent.count = 3
    assert autoprune.resume(run.path, max_evals=6).spent.evals == 6, "it goes on as it was begun"


def test_every_part_may_be_an_object(cell: types.SimpleNamespace, quick: dict[str, Any], tmp_path: Path) -> None:
    own: dict[str, Any] = quick | {
        "agent": cell.Hill, "agent_options": {"steps": np.int64(2)}, "criterion": cell.Largest(),
        "loss": cell.Squares(scale=2.0), "budgets": {cell.joules: "50%", "params": 0.7},
    }  # fmt: skip
    result = autoprune.search(out=tmp_path / "run", **own)
    config = load_config(tmp_path / "run" / "config.yaml")
    assert (live.stem(config.agent), config.agent_options) == ("Hill", {"steps": 2})
    assert [live.stem(config.criterion), live.stem(config.loss)] == ["Largest", "Squares"]
    assert [live.stem(name) for name in config.budgets if name != "params"] == ["joules"]
    assert result.policy.costs["params"].policy <= 0.7 * result.policy.costs["params"].dense
    assert autoprune.resume(tmp_path / "run").loss == result.loss


def test_a_reward_may_be_an_object(cell: types.SimpleNamespace, quick: dict[str, Any], tmp_path: Path) -> None:
    own: dict[str, Any] = quick | {"agent": "ppo", "max_evals": 20}
    by_name = autoprune.search(out=tmp_path / "name", **own, reward="loss")
    by_object = autoprune.search(out=tmp_path / "object", **own, reward=cell.careful)
    assert live.stem(str(load_config(tmp_path / "object" / "config.yaml").reward)) == "careful"
    assert np.isfinite([by_name.loss, by_object.loss]).all()
    env = autoprune.make_env(reward=cell.careful, **{k: v for k, v in quick.items() if k != "max_evals"})
    env.reset(seed=0)


def test_an_instance_is_searched_with_a_copy_of_it(
    cell: types.SimpleNamespace, quick: dict[str, Any], tmp_path: Path
) -> None:
    agent = cell.Counting(5)
    result = autoprune.search(out=tmp_path / "run", **quick | {"agent": agent})
    assert (agent.count, result.spent.evals) == (5, 5)
    assert autoprune.resume(tmp_path / "run").loss == result.loss  # which replays what a copy of it asked for
    assert autoprune.search(out=tmp_path / "again", **quick | {"agent": agent}).loss == result.loss


def test_instances_take_part_in_a_comparison(
    cell: types.SimpleNamespace, quick: dict[str, Any], tmp_path: Path
) -> None:
    agents = [cell.Counting(2), cell.Counting(4), cell.Hill, "uniform"]
    own = quick | {"agent_options": {cell.Hill: {"steps": 1}}}
    compared = autoprune.compare(agents, seeds=1, out=tmp_path / "both", **own)
    assert [row["failed"] for row in compared.table] == [0, 0, 0, 0]
    assert sorted(live.stem(row["agent"]) for row in compared.table if live.is_live(row["agent"])) == [
        "Counting", "Counting", "Hill",
    ]  # fmt: skip
    again = defined(NOTEBOOK)  # the notebook is run again: the comparison is finished, and nothing is searched
    own = quick | {"agent_options": {again.Hill: {"steps": 1}}}
    agents = [again.Counting(2), again.Counting(4), again.Hill, "uniform"]
    assert autoprune.compare(agents, seeds=1, out=tmp_path / "both", **own).table == compared.table


def test_a_single_agent_may_be_compared(cell: types.SimpleNamespace) -> None:
    assert objects.names_of("agents", cell.Hill) == [live.keep(cell.Hill)]
    assert objects.names_of("agents", "random, uniform") == ["random", "uniform"]
    assert objects.names_of("agents", iter(("random", Evolution))) == ["random", "evolution"]


# -- names --------------------------------------------------------------------------------------------------------


def test_what_can_be_imported_is_named_as_in_a_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def joules(unit, level, workload):\n    return 1.0\n", encoding="utf-8")
    own = registry.load("budgets", f"{file}:joules")
    assert objects.name_of("agents", Evolution) == "evolution"
    assert objects.name_of("rewards", amc) == "amc"
    assert objects.name_of("losses", KullbackLeibler) == "kl"
    assert objects.name_of("criteria", fingerprint) == "autoprune.fingerprints:fingerprint"
    assert objects.name_of("budgets", own) == f"{file}:joules"


def test_an_instance_of_a_dataclass_is_its_class_and_its_settings(cell: types.SimpleNamespace) -> None:
    assert objects.named({"agent": Evolution(offspring=8)}) == {"agent": "evolution", "agent_options": {"offspring": 8}}
    found = objects.named({"agent": cell.Hill(steps=7)})
    assert found == {"agent": live.keep(cell.Hill), "agent_options": {"steps": 7}}
    with pytest.raises(UserError, match="has its settings already"):
        objects.named({"agent": Evolution(), "agent_options": {"offspring": 8}})
    inside = dataclasses.make_dataclass("Inside", [("other", Any)], namespace={"search": cell.Hill.search})
    assert objects.named({"agent": inside(other=object())})["agent"].startswith("live:Inside_")


def test_settings_without_objects_stay(quick: dict[str, Any]) -> None:
    own = quick | {"agent_options": {"callback": None, "options": {"a": [1]}}, "budgets": {"params": 0.5}}
    assert objects.named(own) == own


# -- fingerprints -------------------------------------------------------------------------------------------------


def test_equal_code_has_equal_fingerprints(cell: types.SimpleNamespace) -> None:
    again = defined(NOTEBOOK)
    for name in ("Hill", "Counting", "joules", "careful", "Largest"):
        assert fingerprint(getattr(cell, name)) == fingerprint(getattr(again, name)), name
    assert fingerprint(cell.Counting(2)) == fingerprint(again.Counting(2)) != fingerprint(again.Counting(3))


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ("self.steps", "self.steps + 1", "Hill"),
        ("steps: int = 3", "steps: int = 4", "Hill"),
        ("FACTOR = 1.0", "FACTOR = 2.0", "joules"),
        ("self.count = 0", "self.count = 1", "Counting"),
    ],
)
def test_other_code_has_another_fingerprint(cell: types.SimpleNamespace, before: str, after: str, name: str) -> None:
    assert fingerprint(getattr(defined(NOTEBOOK.replace(before, after)), name)) != fingerprint(getattr(cell, name))


def test_fingerprints_of_values() -> None:
    values = [
        1, 1.0, True, "1", b"1", None, [1], (1,), {1}, {1: 2}, {1: 3}, np.arange(3), np.arange(4), torch.arange(3),
        torch.arange(3.0), functools.partial(max, 1), functools.partial(max, 2), np.random.default_rng(0),
        np.random.default_rng(1), max, os, property(max), staticmethod(max), Path("a"),
    ]  # fmt: skip
    found = [fingerprint(value) for value in values]
    assert len(set(found)) == len(values)
    assert found == [fingerprint(value) for value in values]
    assert fingerprint({3, 1, 2}) == fingerprint({1, 2, 3})
    circle: list[Any] = []
    circle.append(circle)
    assert fingerprint(circle) == fingerprint(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert fingerprint(deep)
    assert fingerprint(torch.nn.Linear(1, 1, device="meta"))


def test_what_cannot_be_read_equals_itself_alone(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as one, (tmp_path / "b").open("w") as other:
        assert fingerprint(one) == fingerprint(one) != fingerprint(other)


# -- another process ----------------------------------------------------------------------------------------------


OTHER_PROCESS = f"""{NOTEBOOK}
import warnings

import autoprune

warnings.simplefilter("error")
for parts in ([], [Counting], [Hill, Counting(5)], [Counting(6)], [Counting(5)]):
    try:
        print(autoprune.resume("run", parts=parts).loss)
    except (autoprune.UserError, UserWarning) as error:
        print(error)
print(autoprune.evaluate("run")["cross_entropy"] > 0)
"""


def test_another_process_is_given_the_objects_again(
    cell: types.SimpleNamespace, quick: dict[str, Any], tmp_path: Path
) -> None:
    result = autoprune.search(out=tmp_path / "run", **quick | {"agent": cell.Counting(5)})
    told = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    ).stdout.splitlines()  # fmt: skip
    assert "the agent 'Counting' was given as an object in Python" in told[0]
    assert "autoprune.resume(RUN, parts=[...])" in told[0]
    assert (
        told[1]
        == told[3]
        == ("the object Counting is not as it was when the run was begun: its code or its settings differ.")
    )
    assert told[2] == "the run was not begun with the object Hill: it needs Counting in parts=[...]."
    assert told[4:] == [str(result.loss), "True"]


def test_export_needs_no_agent_and_no_metric(
    cell: types.SimpleNamespace, quick: dict[str, Any], tmp_path: Path
) -> None:
    own: dict[str, Any] = {"agent": cell.Counting(5), "budgets": {cell.joules: 0.5}}
    autoprune.search(out=tmp_path / "run", **quick | own)
    subprocess.run(
        [sys.executable, "-m", "autoprune", "export", "run", "smaller"], cwd=tmp_path, check=True,
        env=dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parent.parent)}, capture_output=True,
    )  # fmt: skip
    assert (tmp_path / "smaller" / "model.safetensors").is_file()


# -- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"agent": {}}, "the agent '{}' is of the type dict: give a name from `autoprune list agents`"),
        ({"agent": autoprune}, "is of the type module"),
        ({"agent": object()}, "has no method 'search', which it must have"),
        ({"agent": "nope"}, "no agent is called 'nope'"),
        ({"agent": "live:Gone_12345678"}, "the agent 'Gone' was given as an object in Python"),
        ({"criterion": 3}, "the criterion '3' is of the type int"),
        ({"loss": max}, "the loss 'builtins:max' cannot be a loss (no signature found"),
        ({"reward": [1], "agent": "ppo"}, "the reward '[1]' is of the type list"),
        ({"budgets": {3: 0.5}}, "the budget '3' is of the type int"),
        ({"budgets": len}, "the metric len needs its bound: budgets={len: 0.5}"),
        ({"agent_options": {"offspring": torch.ones(2)}}, "agent_options.offspring is of the type Tensor"),
        ({"agent": lambda o, rng: None}, "missing a required argument: 'o'. A function that is given as an agent is"),
        ({"agent": lambda o, rng: None}, "give a class with the method 'search'."),
        ({"agent": lambda: 5}, "gives 5, which has no method 'search'. A function that is given as an agent is called"),
        (
            {"loss": lambda *a: 5},
            "gives 5, which has no method 'measure'. A function that is given as a loss is called",
        ),
        ({"loss": lambda logits: logits}, "give a class with the methods 'measure' and 'prepare'."),
        ({"criterion": lambda *a: 1}, "gives 1, which has no method 'order'. A function that is given as a criterion"),
        ({"task": 4}, "the task '4' is of the type int"),
    ],
)
def test_what_is_no_part_is_told(settings: dict[str, Any], seen: str, quick: dict[str, Any]) -> None:
    assert seen in refused(**quick | settings)


def test_workers_are_not_sent_an_object(cell: types.SimpleNamespace, quick: dict[str, Any]) -> None:
    told = refused(**quick | {"loss": cell.Squares, "workers": 2})
    assert "the loss Squares is an object of this process, which workers do not have" in told
    assert "loss='FILE.py:Squares'" in told


def test_an_object_that_cannot_be_copied_is_told(cell: types.SimpleNamespace, quick: dict[str, Any]) -> None:
    agent = cell.Counting(2)
    agent.lock = sys.stdout
    assert "the agent is a Counting that cannot be copied" in refused(**QUICK | {"agent": agent})


def test_an_instance_with_slots_is_told(quick: dict[str, Any]) -> None:
    class Slots:
        __slots__ = ("own",)

        def search(self, objective: Any, rng: Any) -> None:
            pass

    assert "the agent Slots has __slots__" in refused(**quick | {"agent": Slots()})


def test_an_agent_may_hold_a_reward_of_ones_own(
    cell: types.SimpleNamespace, quick: dict[str, Any], tmp_path: Path
) -> None:
    from autoprune.agents.ppo import PPO

    result = autoprune.search(out=tmp_path / "run", **quick | {"agent": PPO(reward=cell.careful), "max_evals": 10})
    config = load_config(tmp_path / "run" / "config.yaml")
    assert (config.agent, config.agent_options) == ("ppo", {"reward": live.keep(cell.careful)})
    assert autoprune.resume(tmp_path / "run").loss == result.loss
    with pytest.raises(UserError, match="and not as 3"):
        PPO(reward=3)  # type: ignore[arg-type]


def test_an_error_in_an_object_is_the_users_own(quick: dict[str, Any]) -> None:
    def broken(unit: Any, level: Any, workload: Any) -> float:
        raise KeyError("lost")

    assert "raised KeyError" in refused(**quick | {"budgets": {broken: 0.5}})


def test_an_error_in_an_agent_is_told_as_on_the_command_line(quick: dict[str, Any], tmp_path: Path) -> None:
    class Broken:
        def __init__(self, late: bool) -> None:
            self.late = late

        def search(self, objective: Any, rng: Any) -> None:
            objective([objective.space.uniform()])
            if not self.late:
                raise KeyError("lost")

        def front(self, objective: Any) -> Any:
            raise KeyError("lost")

    for late in (False, True):
        settings = quick | {"agent": Broken(late), "out": tmp_path / str(late)}
        with pytest.raises(UserError, match=r"in the agent 'Broken', your own code raised KeyError at .*py") as caught:
            autoprune.search(**settings)
        assert isinstance(caught.value.__cause__, KeyError)
