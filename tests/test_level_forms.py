"""A second form of levels goes through a whole search: scoring, policy file, report, export."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoprune
from autoprune import assembly as assembling
from autoprune import exporting, registry
from autoprune.assembly import Assembly, assemble
from autoprune.budgets import latency as measuring
from autoprune.budgets.metric import cost_rows
from autoprune.budgets.table import read
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.level import Level, form_called, form_of, group_levels
from autoprune.levels.form import live_form
from autoprune.levels.store import store_key
from autoprune.policy import Policy
from autoprune.ports.adapting import as_port
from autoprune.ports.metric import Metric
from autoprune.provenance import make_policy, proposal_of
from autoprune.reports.page import write_report
from autoprune.space import Unit, kept_groups
from autoprune.space_file import load_space, save_space
from autoprune.testing.toys import toy_space
from autoprune.workload import Workload
from tests.conftest import Answer
from tests.second_form import HALF, mixed_levels, scaled
from tests.toy_network import additive, counting_clock, toy_network

WORKLOAD = Workload(context=32)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form has its line in the registry, and all of its levels stay, whichever are better."""
    monkeypatch.setitem(registry.PARTS["forms"], "scaled", "tests.second_form:Scaled")
    monkeypatch.setattr(assembling, "undominated", lambda space, store, *_: (space, store))


# -- the record ------------------------------------------------------------------------------------------------------


def test_a_level_says_its_form_how_much_is_kept_and_how_dense_it_is() -> None:
    assert kept_groups(8, (1, 0.5, 0)) == (Level(8, 1.0), Level(4, 0.5), Level(0, 0.0)) == group_levels(8, (8, 4, 0))
    half, mixed = Level.of_groups(4, 8), scaled(4, 8, 0.5)
    assert (half.form, half.name, half.key) == ("groups", "groups:4", 4)
    assert (mixed.form, mixed.name, mixed.key) == ("scaled", "scaled:4,share=0.5", "scaled:4,share=0.5")
    assert (mixed.density, mixed.option("share")) == (0.25, 0.5)


@pytest.mark.parametrize("level", [Level.of_groups(3, 8), scaled(8, 8, 0.75)])
def test_a_level_is_read_as_it_was_written(level: Level) -> None:
    assert Level.from_json(json.loads(json.dumps(level.to_json())), 8) == level


@pytest.mark.parametrize(
    "value",
    [
        9, -1, None, "3", True, 2.0, {}, {"form": "scaled"}, {"form": "scaled", "kept": 9, "density": 0.5},
        {"form": "", "kept": 3, "density": 0.5}, {"form": "scaled", "kept": 3, "density": 2},
        {"form": "scaled", "kept": 3, "density": 0.5, "options": [1]},
        {"form": "scaled", "kept": 3, "density": 0.5, "options": {"share": None}},
    ],
)  # fmt: skip
def test_what_is_no_level_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"level"):
        Level.from_json(value, 8)


def test_forms_are_found_by_name() -> None:
    assert form_of(Level(3, 0.5)) is form_called("groups")
    with pytest.raises(UserError, match=r"no form is called 'scaly'\. Did you mean 'scaled'\?"):
        form_called("scaly")
    with pytest.raises(UserError, match=r"the form 'autoprune.space:SLACK' is a float"):
        form_called("autoprune.space:SLACK")


# -- files that are older than levels --------------------------------------------------------------------------------


def test_the_name_of_a_store_of_groups_is_what_it_was() -> None:
    unit = Unit("0.mlp", "mlp", 0, 4, group_levels(4, (4, 2, 0)), 10)
    assert store_key([unit], "model", "data") == "d5d4a3cf88d8774d"
    assert store_key([Unit("0.mlp", "mlp", 0, 4, (Level(4, 1.0), scaled(4, 4, 0.5)), 10)]) != store_key([unit])


def test_a_space_file_of_the_first_schema_is_read(tmp_path: Path) -> None:
    space, path = toy_space(), tmp_path / "space.json"
    save_space(path, space)
    record = json.loads(path.read_text())
    for unit in record["units"]:
        unit["kept"] = unit.pop("levels")
    path.write_text(json.dumps(record | {"schema": "autoprune.space/1"}))
    assert load_space(path)[0].units == space.units


def test_a_policy_file_of_the_first_schema_is_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    unit = {"name": "0.mlp", "kind": "mlp", "block": 0, "groups": 4, "level": 1, "kept": 3, "kept_groups": "0-1,3"}
    older = {"schema": "autoprune.policy/1", "units": [unit], "costs": {}, "losses": {}, "provenance": {}}
    path.write_text(json.dumps(older))
    policy = Policy.load(path)
    assert [one.as_level for one in policy.units] == [Level.of_groups(3, 4)]
    policy.save(path)
    assert json.loads(path.read_text())["schema"] == "autoprune.policy/2"
    assert Policy.load(path) == policy
    path.write_text(json.dumps(older | {"units": [unit | {"kept": 2}]}))
    with pytest.raises(UserError, match="kept says 2"):
        Policy.load(path)


# -- a whole search --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(quick: dict[str, Any]) -> dict[str, Any]:
    """Of a quick search."""
    return quick | {"budgets": {"params": 0.45}, "forms": "scaled"}


@pytest.fixture
def mixed(settings: dict[str, Any]) -> Assembly:
    """A network whose units have levels of both forms."""
    return assemble(load_config(overrides=settings))


def test_such_a_level_in_place_is_the_network_scaled_by_hand(mixed: Assembly) -> None:
    evaluator = mixed.evaluator(mixed.splits.search, "ce")
    units, widths = mixed.space.units, [width for row in mixed.view.widths for width in row]
    policy = tuple(3 if unit.kind == "mlp" else 1 for unit in units)
    loss = evaluator.score([policy], range(2))
    assert [vars(width)["share"] for width in widths] == [HALF if unit.kind == "mlp" else 0.75 for unit in units]
    mixed.placer.release()
    assert not any("share" in vars(width) for width in widths)
    for width, unit, number in zip(widths, units, policy, strict=True):
        level = unit.levels[number]
        width.keep(level.kept)
        consumer: Any = width.consumer
        consumer.weight.data = consumer.weight.data * level.option("share")
    tokens = mixed.splits.search[:2]
    logits = mixed.view(tokens).double()
    by_hand = [
        float(torch.nn.functional.cross_entropy(one[:-1], row[1:])) for one, row in zip(logits, tokens, strict=True)
    ]
    assert loss[0] == pytest.approx(np.array(by_hand), rel=1e-4)


@pytest.mark.parametrize("agent", ["evolution", "ppo", "greedy"])
def test_a_search_finds_a_policy_of_both_forms(
    settings: dict[str, Any], agent: str, tmp_path: Path, cli: Callable[..., Answer]
) -> None:
    run = tmp_path / "run"
    found = autoprune.search(out=run, agent=agent, **settings)
    forms = {unit.form for unit in found.policy.units}
    assert forms == {"groups", "scaled"}
    space, _ = load_space(run / "space.json")
    assert space.units[0].levels == mixed_levels(space.units[0].groups, space.units[0].bundle)
    proposal = tuple(unit.level for unit in found.policy.units if unit.level is not None)
    assert space.feasible(proposal)
    assert [unit.as_level for unit in found.policy.units] == space.levels_of(proposal)
    written = json.loads((run / "policy.json").read_text())
    assert written["schema"] == "autoprune.policy/2"
    assert Policy.load(run / "policy.json") == found.policy
    again = autoprune.search(out=tmp_path / "again", agent=agent, **settings)
    assert again.policy.units == found.policy.units
    assert exporting.reopen(run)[1] == found.policy
    page = write_report(run).read_text(encoding="utf-8")
    assert "scaled:" in page
    found.export(tmp_path / "policy.json", to="policy")
    found.export(tmp_path / "network", to="hf")
    assert Policy.load(tmp_path / "policy.json") == found.policy
    answer = cli("show", run)
    assert answer.status == 0
    assert "scaled:" in answer.out


def test_a_policy_of_both_forms_is_told_read_and_exported(mixed: Assembly, tmp_path: Path) -> None:
    policy = make_policy(mixed, (1, 3, 2, 0, 4, 1, 3, 3), {})
    policy.save(tmp_path / "policy.json")
    read_back = Policy.load(tmp_path / "policy.json")
    assert read_back == policy
    assert proposal_of(mixed, read_back) == (1, 3, 2, 0, 4, 1, 3, 3)
    first = json.loads((tmp_path / "policy.json").read_text())["units"][0]
    assert first | {"form": "scaled", "kept": 4, "density": 0.75, "options": {"share": 0.75}} == first
    other = policy.model_copy(update={"units": [policy.units[1], *policy.units[1:]]})
    with pytest.raises(UserError, match="are not those of this run's level store"):
        proposal_of(mixed, other)
    finer = policy.units[0].model_copy(update={"level": 99})  # of a run with more levels
    with pytest.raises(UserError, match="take a policy of this run"):
        proposal_of(mixed, policy.model_copy(update={"units": [finer, *policy.units[1:]]}))


def test_a_comparison_names_the_agent_that_cannot_choose_among_forms(quick: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the agent policy-gradient-masks keeps or removes"):
        autoprune.compare(
            ["random", "policy-gradient-masks"], **quick | {"forms": "groups,sparse"}, out=tmp_path / "compared"
        )
    assert not (tmp_path / "compared").exists()


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_a_metric_is_asked_by_level_or_as_once_by_groups_kept() -> None:
    unit = Unit("0.mlp", "mlp", 0, 4, mixed_levels(4, 1), 10)
    plain = Unit("0.mlp", "mlp", 0, 4, group_levels(4, (4, 2, 0)), 10)

    def density(unit: Unit, level: Level, workload: Workload) -> float:
        return level.density

    def annotated(unit: Unit, way: Level, workload: Workload) -> float:
        return way.density

    def groups(unit: Unit, kept: int, workload: Workload) -> float:
        return kept

    for metric in (density, annotated):
        assert cost_rows("mine", [unit], WORKLOAD, as_port(Metric, metric)) == [[1, 0.75, 0.5, 0.25, 0]]
    assert cost_rows("mine", [plain], WORKLOAD, as_port(Metric, groups)) == [[4, 2, 0]]
    assert cost_rows("params", [unit], WORKLOAD) == [[40, 30, 20, 10, 0]]
    with pytest.raises(UserError, match=r"'groups' .* counts groups kept, and the unit 0\.mlp has the level scaled:4"):
        cost_rows("mine", [unit], WORKLOAD, as_port(Metric, groups))


def test_a_table_names_levels_of_other_forms(tmp_path: Path) -> None:
    unit, path = Unit("0.mlp", "mlp", 0, 4, mixed_levels(4, 1), 10), tmp_path / "t.csv"
    path.write_text('unit,kept,cost\nmlp,4,9\nmlp,2,5\nmlp,"scaled:4,share=0.75",7\n')
    with pytest.raises(UserError, match=r"lacks unit 0\.mlp at scaled:2,share=0\.5"):
        cost_rows(str(path), [unit], WORKLOAD, read(path))
    path.write_text(path.read_text() + 'mlp,"scaled:2,share=0.5",1\n')
    assert cost_rows(str(path), [unit], WORKLOAD, read(path)) == [[9, 7, 5, 1, 0]]


def test_a_table_of_latencies_names_levels_of_other_forms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    units = [Unit(f"{block}.mlp", "mlp", block, 4, mixed_levels(4, 1), 10) for block in range(2)]
    monkeypatch.setattr(measuring, "clock", counting_clock(additive()))
    network = toy_network(units, WORKLOAD, tmp_path)
    table = measuring.latency(network)
    assert cost_rows("latency", units, WORKLOAD, table)[0] == pytest.approx([2, 2, 1.2, 1.2, 0])
    assert measuring.latency(network) == table, "found again"
    assert table.classes[0].kept == [0, "scaled:2,share=0.5", 2, "scaled:4,share=0.75", 4]
    with pytest.raises(UserError, match=r"lacks unit 0\.mlp at scaled:3,share=0\.5"):
        table(units[0], scaled(3, 4, 0.5), WORKLOAD)


def test_a_form_without_tensors_makes_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PARTS["forms"], "words", "autoprune.level:Form")
    with pytest.raises(UserError, match=r"the form 'words' must derive from autoprune\.levels\.form\.LiveForm"):
        live_form(Level(1, 0.5, "words"))
