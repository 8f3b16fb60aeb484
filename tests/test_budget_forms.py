"""Budgets as people write them, what they are of, and what is said of those that bound nothing."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autoprune
from autoprune.assembly import Assembly, assemble
from autoprune.budgets.bounds import absolute_bound
from autoprune.config import load_config
from autoprune.cost_lines import budgets_asked, budgets_in, cost_lines
from autoprune.envs import make
from autoprune.errors import UserError
from autoprune.mask import Mask
from autoprune.policy import Policy
from autoprune.validation import total_macs, total_params
from autoprune.written import parse_budget
from tests.test_cli import Cli


@pytest.mark.parametrize(
    ("written", "bound"),
    [
        ("params=50%", 0.5), ("50 %", 0.5), ("0.5", 0.5), ("params=-30%", 0.7), ("-30%", 0.7), ("-70%", 0.3),
        ("\N{MINUS SIGN}30 %", 0.7), ("-0.3", 0.7), ("-0%", 1.0), ("100%", 1.0), ("1", 1.0), ("0.5%", 0.005),
        ("1.2M", 1.2e6), ("1,200,000", 1.2e6), ("1_200_000", 1.2e6), ("12K", 12_000.0), ("-2M", -2e6),
        ("-1,000", -1000.0), ("latency=12", 12.0), ("latency=1.5", 1.5), ("my=table.csv=-25%", 0.75),
    ],
)  # fmt: skip
def test_what_a_budget_means(written: str, bound: float) -> None:
    metric = written.rpartition("=")[0] or "params"
    assert parse_budget(written) == (metric, bound)
    for form in (written, [written], {metric: written.rpartition("=")[2]}, {metric: bound}):
        assert load_config(None, {"budgets": form}).budgets == {metric: bound}


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("half", "not of the form"), ("50%%", "not of the form"), ("0,5", "not of the form"),
        ("1,2M", "not of the form"),
        ("+30%", "not of the form"), ("%50", "not of the form"), ("", "not of the form"), ("-", "not of the form"),
        ("120%", "more than the whole network"), ("-120%", "removes more than the whole network"),
        ("-100%", "removes everything"), ("-1", "removes everything"), ("0%", "above 0"), ("0", "above 0"),
        ("1.5", "1.5% or 0.015 for a share, 1.5k or 1.5M"), ("50", "50% or 0.5 for a share, 50k or 50M"),
        ("-50", "-50% or -0.5 for a share"), ("macs=100", "100k or 100M"), ("1e999", "above 0"), ("-1e999", "above 0"),
        ("latency=12ms", "latency is in ms"), ("activation=1.2MB", "activation in bytes"),
    ],
)  # fmt: skip
def test_what_is_no_budget_gets_a_sentence(written: str, seen: str) -> None:
    for form in (written, [written]):
        with pytest.raises(UserError) as error:
            load_config(None, {"budgets": form})
        assert seen in str(error.value)
        assert "budget" in str(error.value)


@given(st.integers(1, 99))
def test_a_share_that_is_removed_is_the_rest_that_is_kept(percent: int) -> None:
    assert parse_budget(f"-{percent}%")[1] == parse_budget(f"{100 - percent}%")[1]
    assert load_config(None, {"budgets": -percent / 100}).budgets["params"] == pytest.approx(1 - percent / 100)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--budget", "params=-30%"], ["--budget=params=-30%"], ["--budget=-30%"], ["--budget", "-30%"],
        ["budgets=-30%"], ["budgets.params=-30%"], ["--budget", "params=70%"],
    ],
)  # fmt: skip
def test_minus_is_no_option(cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    seen: list[Any] = []

    def start(config: Any, *_: object) -> None:
        seen.append(config)
        raise UserError("enough")

    monkeypatch.setattr("autoprune.study.start", start)
    assert cli("search", *arguments).status == 2
    assert seen[0].budgets == {"params": 0.7}


def test_what_is_removed_in_numbers() -> None:
    assert absolute_bound("params", 0.3, 200.0) == 0.3 * 200.0
    assert absolute_bound("params", 150.0, 200.0) == 150.0
    assert absolute_bound("params", -150.0, 200.0) == 50.0
    for of_model, where in ((False, "that can be pruned"), (True, "in the whole network")):
        with pytest.raises(UserError, match=f"params=-200 removes all of the 200 {where}"):
            absolute_bound("params", -200.0, 200.0, of_model)


# -- what a bound is of ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["text", "images", "masks"])
def of_model(request: pytest.FixtureRequest, quick: dict[str, Any]) -> Assembly:
    if request.param == "images":
        return assemble(load_config(None, {"model": "tiny-cnn", "of": "model", "budgets": {"macs": "-40%"}}))
    settings = quick | {"of": "model", "budgets": {"params": 0.6, "macs": 0.7}, "levels": [1, 0.5, 0]}
    return assemble(load_config(None, settings), masks=request.param == "masks")


def test_totals_are_those_of_the_whole_network(of_model: Assembly) -> None:
    space, rng = of_model.space, np.random.default_rng(0)
    policies: list[Any] = [space.dense, space.sparsest, space.uniform(), *(space.sample(rng) for _ in range(3))]
    if space.group_costs:
        policies += [Mask.pack([rng.random(groups) < share for groups in space.groups]) for share in (0.0, 0.5)]
    for policy in policies:
        assert space.cost(policy, "params") == total_params(of_model, policy)
        assert space.cost(policy, "macs") == pytest.approx(total_macs(of_model, policy))


def test_a_share_is_of_the_whole_network(of_model: Assembly) -> None:
    space, config = of_model.space, of_model.config
    whole = {"params": of_model.loaded.n_params, "macs": total_macs(of_model, space.dense)}
    for metric, bound in config.budgets.items():
        assert space.budgets[metric] == pytest.approx(bound * whole[metric])
        assert space.bounds[metric] == pytest.approx(space.budgets[metric] - space.fixed[metric])
        assert space.cost(space.uniform(), metric) <= space.budgets[metric]


def test_what_cannot_be_reached_in_the_whole_network(quick: dict[str, Any]) -> None:
    settings = quick | {"of": "model", "levels": [1, 0.5, 0]}
    space = assemble(load_config(None, settings | {"budgets": {"params": 0.9}})).space
    least = space.cost(space.sparsest, "params")
    seen = f"smallest reachable value is {least:,.0f} .* {space.fixed['params']:,.0f} cannot be pruned"
    with pytest.raises(UserError, match=seen):
        assemble(load_config(None, settings | {"budgets": {"params": least - 1}}))
    assert assemble(load_config(None, settings | {"budgets": {"params": least}})).space.uniform() == space.sparsest


def test_a_run_says_what_its_bounds_are_of(cli: Cli, quick_arguments: list[str]) -> None:
    shown = " ".join(
        cli("search", *quick_arguments, "--budget", "params=60%", "--of", "model", "--out", "run").out.split()
    )
    assert re.search(r"60\.0% of the whole network's \S+ \(--of model\)\.", shown)
    policy = Policy.load(Path("run/policy.json"))
    cost = policy.costs["params"]
    assert cost.network is not None
    assert (cost.of, cost.dense, cost.policy) == ("model", cost.network.dense, cost.network.policy)
    assert cost.budget is not None
    assert cost.policy <= cost.budget == pytest.approx(0.6 * cost.dense)
    assert [line.name for line in cost_lines(policy.costs)] == ["params, whole network", "macs, whole network"]
    assert load_config(Path("run/config.yaml")).of == "model"
    assert "params, whole network" in cli("show", "run").out
    assert "can be pruned" not in cli("show", "run").out
    cli("report", "run", "--out", "r.html")
    page = Path("r.html").read_text()
    assert "params at most 60 % of the whole network" in page
    assert "of the whole network, and so is a budget on them" in page
    cli("export", "run", "out")
    card = Path("out/README.md").read_text()
    assert "| params, whole network |" in card
    assert "can be pruned" not in card
    journal = Path("run/journal.jsonl").read_text()
    assert cli("resume", "run").status == 0
    assert Path("run/journal.jsonl").read_text() == journal


def test_a_comparison_says_what_its_bounds_are_of(cli: Cli, quick_arguments: list[str]) -> None:
    answer = cli("compare", *quick_arguments, "--agents", "uniform", "--seeds", "1", "--of", "model", "--out", "cmp")
    assert "budgets: params at most 50% of the whole network" in answer.out
    cli("report", "cmp", "--out", "r.html")
    assert "params at most 50 % of the whole network" in Path("r.html").read_text()


def test_bounds_of_what_can_be_pruned_are_shown_for_the_whole_network(finished_run: Path, cli: Cli) -> None:
    policy = Policy.load(finished_run / "policy.json")
    (budget,) = budgets_in(policy.costs)
    cost = policy.costs["params"]
    assert cost.network is not None
    assert cost.budget is not None
    assert cost.of == "prunable"
    assert budget.bound == cost.network.dense - cost.dense + cost.budget
    assert cost.network.policy <= budget.bound
    lines = {line.name: line.bound for line in cost_lines(policy.costs)}
    assert lines["params, whole network"] == budget.bound
    assert lines["params, what can be pruned"] == cost.budget
    assert lines["macs, whole network"] is None
    shutil.copytree(finished_run, "run")
    shown = cli("resume", "run").out
    assert "at most" in shown
    assert f"budget:  {budget.told}" in shown


def test_other_metrics_keep_their_meaning_and_have_columns(cli: Cli, quick_arguments: list[str]) -> None:
    Path("own.py").write_text("def energy(unit, level, workload):\n    return level.kept\n")
    own = ["--budget", "roofline=0.6", "--budget", "own.py:energy=-10%", "workload.hardware=h100", "--of", "model"]
    answer = cli("search", *quick_arguments, *own, "--out", "run", "--json")
    found = json.loads(answer.out)
    assert {key: (one["of"], one["measure"]) for key, one in found["costs"].items()} == {
        "roofline": ("model", "ms"), "own.py:energy": (None, None), "params": ("model", None), "macs": ("model", None),
    }  # fmt: skip
    for row in found["table"]:
        assert row["costs"].keys() == {"roofline", "own.py:energy"}
    shown = cli("resume", "run").out
    head = " ".join(line for line in shown.splitlines()[:4])
    assert "roofline" in head
    assert "(ms)" in head
    assert "energy" in head
    assert "own.py:energy at most" in shown
    assert "90.0% of the dense network's" in shown
    assert "of the whole network's" in shown


def test_configured_budgets_in_words() -> None:
    asked = {"params": 0.5, "macs": -2e6, "latency": 12.0, "own": 0.25}
    assert budgets_asked(asked, "prunable") == (
        "params at most 50 % of what can be pruned, macs at least 2M less of what can be pruned, latency at most 12, "
        "own at most 25 % of dense"
    )


# -- what is told ----------------------------------------------------------------------------------------------------


def told(settings: dict[str, Any]) -> list[str]:
    with pytest.warns(UserWarning, match="budget") as caught:
        make.make_env(**settings, sensitivities=False)
    return [str(one.message) for one in caught]


def test_a_bound_between_what_can_be_pruned_and_the_whole_network(quick: dict[str, Any]) -> None:
    first = told(quick | {"budgets": {"params": "130k"}})[0]
    assert first == (
        "the budget params=130,000 bounds nothing: the dense network has 122,880 that count (of 156,352 in the whole "
        "network). So nothing need be pruned, and the dense network is an answer. Give less, or --of model "
        "if the bound is meant for the whole network, or params=0.5."
    )
    assert "--of model" not in told(quick | {"budgets": {"params": "250k"}})[0]
    assert "--of model" not in told(quick | {"budgets": {"params": "100%"}})[0]
    assert "has 156,352 that count" in told(quick | {"budgets": {"params": "250k"}, "of": "model"})[0]


def test_next_to_nothing_is_told(quick: dict[str, Any]) -> None:
    (only,) = told(quick | {"budgets": {"params": "0.5%"}, "levels": [1, 0.5, 0]})
    assert only == "the budget params=0.5% keeps next to nothing: a half is params=0.5 or params=50%."


def test_best_that_is_not_below_uniform_is_told(cli: Cli, quick_arguments: list[str]) -> None:
    own = [one for one in quick_arguments if not one.startswith("max_")]
    own += ["--max-evals", "1", "--agent", "evopress"]  # which begins with the uniform policy
    found = json.loads(cli("search", *own, "--out", "run", "--json").out)
    losses = {row["name"]: row["validation_loss"] for row in found["table"]}
    as_found = found["refit"]["found"]["loss"] if found["refit"] else losses["best"]
    assert as_found == losses["uniform"] > losses["dense"]
    assert "nothing better than the uniform policy" in found["note"]
    assert "--max-evals 4 (now 1)" in found["note"]
    assert found["note"] in cli("resume", "run").out
    cli("report", "run", "--out", "r.html")
    assert "nothing better than the uniform policy" in Path("r.html").read_text()
    assert "nothing better" not in cli("search", *quick_arguments, "--agent", "uniform", "--out", "uniform").out


def test_of_is_an_argument(quick: dict[str, Any], tmp_path: Path) -> None:
    result = autoprune.search(out=tmp_path / "run", of="model", **quick | {"budgets": "-40%"})
    assert result.policy.costs["params"].of == "model"
    with pytest.raises(UserError, match="of: Input should be 'prunable' or 'model'"):
        autoprune.search(of="whole", **quick)
