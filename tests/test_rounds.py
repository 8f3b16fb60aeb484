"""Rounds: budgets, nesting, what is measured against what, what is spent, and a run that is killed in every stage."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import autoprune
from autoprune import exporting, rounds
from autoprune.errors import UserError
from autoprune.evaluation.readout import Readout
from autoprune.networks.starting import FILE
from autoprune.policy import Policy, unranges
from autoprune.reports.page import render
from autoprune.reports.run import read_run
from autoprune.rounds_file import read_rounds
from autoprune.space_file import load_space
from autoprune.testing.toys import toy_space
from autoprune.validation import mean_losses

TOTAL = 24_000
SMALL = {"rounds": 3, "round_tokens": 512, "max_evals": None, "max_tokens": TOTAL}
"""Of the quick search: about 6,600 tokens for each search."""


@pytest.fixture(scope="module")
def run(quick: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds. Nothing is written to it but by `finetune`."""
    path = tmp_path_factory.mktemp("rounds") / "run"
    return autoprune.search(**quick | SMALL, out=path).path


@pytest.fixture(scope="module")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of the embedded network that reads images."""
    settings: dict[str, Any] = {"reconstruction_sequences": 8, "search_sequences": 4, "validation_sequences": 4}
    path = tmp_path_factory.mktemp("rounds") / "images"
    return autoprune.search(
        "tiny-cnn", rounds=2, round_tokens=2048, max_tokens=12_000, budgets={"macs": 0.1}, out=path, **settings
    ).path


def policies_of(run: Path) -> list[Policy]:
    earlier = [run / "rounds" / str(number) for number in range(1, len(read(run).done) + 1)]
    return [Policy.load(path / "policy.json") for path in (*earlier, run)]


def read(run: Path) -> Any:
    known = read_rounds(run)
    assert known is not None
    return known


def test_budgets_step_down_to_the_last_which_is_of_the_dense_network(run: Path) -> None:
    costs = [policy.costs["params"] for policy in policies_of(run)]
    shares = [0.5 ** (1 / 3), 0.5 ** (2 / 3), 0.5]
    for cost, share in zip(costs, shares, strict=True):
        assert cost.dense == costs[0].dense
        assert cost.budget == pytest.approx(share * cost.dense)
        assert cost.policy <= share * cost.dense * (1 + 1e-9)
    assert read(run).plan.shares == {"params": 0.5}


def test_what_is_gone_stays_gone(run: Path) -> None:
    for before, after in zip(policies_of(run), policies_of(run)[1:], strict=False):
        for one, other in zip(before.units, after.units, strict=True):
            assert set(unranges(other.kept_groups)) <= set(unranges(one.kept_groups)), one.name


@pytest.mark.parametrize("of", ["run", "image_run"])
def test_a_round_starts_from_the_trained_network(of: str, request: pytest.FixtureRequest) -> None:
    """Its losses are those that fine-tuning measured, at level 0 as at what is left; dense is the original."""
    path = request.getfixturevalue(of)
    assembly, _ = exporting.reopen(path)
    known, space, task = read(path).done[-1], assembly.space, assembly.task
    assert any(space.floor)
    own = assembly.evaluator(assembly.splits.validation, assembly.config.loss, task.label_loss)
    losses_KP = own.score_each([space.dense, space.floor], range(own.n_sequences)).mean(axis=2)
    np.testing.assert_allclose(losses_KP[1], known.recovered["ce"], rtol=1e-5)
    np.testing.assert_allclose(losses_KP[0, 0], losses_KP[0, 1], rtol=1e-4, atol=1e-6)
    assert own.dense_losses([0])[0] > 1e-4  # the network at level 0 is not the reference
    dense = mean_losses(assembly, assembly.splits.validation, [space.dense], ["kl", "ce"], lambda *told: None)[0]
    assert dense[0] == pytest.approx(0, abs=1e-5)
    assert dense[1] == pytest.approx(known.dense["ce"], rel=1e-5)


def test_the_start_has_zeros_where_something_is_gone(run: Path) -> None:
    left = [len(unranges(unit.kept_groups)) for unit in policies_of(run)[-2].units]
    weights = load_file(run / FILE)
    for block in range(4):
        down = weights[f"model.layers.{block}.mlp.down_proj.weight"]
        assert int((down != 0).any(dim=0).sum()) == left[2 * block + 1]


def test_everything_is_spent_within_the_limit(run: Path) -> None:
    known, result = read(run), autoprune.load(run)
    earlier = sum(part.tokens for one in known.done for part in (one.search, one.training))
    assert isinstance(result, autoprune.SearchResult)
    assert earlier < result.spent.tokens <= TOTAL
    assert result.spent.training == sum(one.training.tokens for one in known.done) == 2 * 4 * 512
    assert result.policy.provenance["spent"]["tokens"] == result.spent.tokens
    assert result.spent.tokens > 0.9 * TOTAL


def test_the_result_is_measured_against_the_dense_network(run: Path, tmp_path: Path) -> None:
    result = autoprune.load(run)
    assert isinstance(result, autoprune.SearchResult)
    dense, _, best = result.table
    assert dense.validation_loss == pytest.approx(0, abs=1e-5)
    assert best.validation_loss == result.loss > 0.01
    exported = result.export(tmp_path / "export")
    assert "in 3 rounds and trained between them" in (exported / "README.md").read_text()
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(exported)
    ce = torch.stack([network(input_ids=row[None], labels=row[None]).loss for row in result.assembly.splits.validation])
    assert float(ce.detach().mean()) == pytest.approx(best.ce, rel=1e-5)
    assert autoprune.evaluate(run)["perplexity"] == pytest.approx(best.perplexity, rel=1e-6)


def test_the_run_is_fine_tuned_by_the_dense_network(run: Path) -> None:
    recovered: Any = autoprune.finetune(run, max_tokens=512)
    assert recovered.dense.kl == 0
    assert recovered.dense.ce == pytest.approx(read(run).done[0].dense["ce"])
    found = policies_of(run)[-1].as_found()
    assert recovered.before.kl == pytest.approx(found.losses["validation"][found.called]["loss"], rel=1e-4)
    assert recovered.after.ce <= recovered.before.ce


def test_the_report_tells_of_the_rounds(run: Path) -> None:
    page = render(read_run(run))
    assert "<h2>Rounds</h2>" in page
    assert "against the original dense network" in page
    assert "79.4" in page
    for one in read(run).done:
        assert f"{one.trained:,}" in page
    assert load_space(run / "space.json")[0].floor == exporting.reopen(run)[0].space.floor


def test_policies_of_a_space_with_a_floor() -> None:
    plain = toy_space(units=6, levels=5)
    space, rng = plain.with_floor((0, 1, 2, 0, 1, 2)), np.random.default_rng(0)
    policies = [space.uniform(), space.repair(space.dense), space.repair(space.dense, rng), space.thinned(space.dense)]
    policies += [space.sample(rng) for _ in range(50)]
    policies += [space.mutate(policies[-1], rng, switches, first) for switches in (1, 3) for first in (0, 2)]
    for policy in policies:
        assert space.feasible(policy)
        assert all(level >= least for level, least in zip(policy, space.floor, strict=True))
    assert plain.floor == plain.dense


def test_losses_behind_a_linear_head_are_those_of_logits(run: Path) -> None:
    assembly, _ = exporting.reopen(run)
    assert assembly.dense is not None
    losses = [assembly.task.loss(name) for name in ("kl", "ce")]
    tokens_NT = assembly.splits.validation
    readout = Readout(assembly.view, losses, 0, assembly.placer, assembly.dense.view)
    assert readout.head is not None
    hidden_1TD = assembly.view.embed(tokens_NT[:1])
    for block in range(len(assembly.view.blocks)):
        hidden_1TD = assembly.view.run(block, hidden_1TD)
    found = readout.measure(hidden_1TD, [readout.references(0, tokens_NT[0])])
    labels_1T, dense_1TV = assembly.view.labels(tokens_NT[:1]), assembly.dense.view(tokens_NT[:1])
    wanted = [loss.measure(assembly.view.head(hidden_1TD), loss.prepare(dense_1TV, labels_1T)) for loss in losses]
    torch.testing.assert_close(found[:, 0], torch.cat(wanted).double(), rtol=1e-4, atol=1e-5)


def outcome(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions."""
    policy, result = (json.loads((run / name).read_text()) for name in ("policy.json", "result.json"))
    known = read(run)
    done = [(one.search.tokens, one.training.tokens, one.found, one.recovered) for one in known.done]
    spent = {key: result["spent"][key] for key in ("evals", "tokens", "training")}
    table = [(row["name"], row["validation_loss"]) for row in result["table"]]
    return {"units": policy["units"], "losses": policy["losses"], "spent": spent, "table": table, "done": done}


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_as_if_it_had_not_been(quick: dict[str, Any], tmp_path: Path) -> None:
    settings = quick | {"rounds": 2, "round_tokens": 1536, "max_evals": None, "max_tokens": 16_000}
    arguments = [sys.executable, "-m", "tests.killed_rounds", json.dumps(settings), str(tmp_path)]
    done = subprocess.run(arguments, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert outcome(killed) == outcome(whole)
    for name in (FILE, "rounds/1/finetuned/network/model.safetensors"):
        one, other = load_file(whole / name), load_file(killed / name)
        assert one.keys() == other.keys()
        for key, tensor in one.items():
            assert torch.equal(tensor, other[key]), key


def test_a_stopped_round_is_gone_on_with(quick: dict[str, Any], tmp_path: Path) -> None:
    def stop(objective: Any) -> None:
        if objective.spent.evals > 10:
            objective.stop()

    settings, path = quick | SMALL | {"rounds": 2}, tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        autoprune.search(**settings, callbacks=stop, out=path)
    assert not (path / "policy.json").exists()
    result = autoprune.resume(path)
    assert result.spent.tokens > 0.9 * TOTAL


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rounds": 0}, "rounds"),
        ({"rounds": 1, "round_tokens": 512}, "one round"),
        ({"rounds": 2, "max_tokens": 2400, "round_tokens": 512}, "has no room for 2 rounds"),
        ({"rounds": 2, "max_evals": 60, "round_tokens": 512}, "max_evals=60 has no room"),
        ({"rounds": 2, "max_tokens": 100_000, "round_tokens": 100}, "^round_tokens=100 is less .*: raise it.$"),
        ({"rounds": 40, "max_tokens": 20_000}, "what the limits of the search leave .* raise max_tokens or max_evals"),
        ({"rounds": 2, "workers": 2}, "leave --workers"),
        ({"rounds": 2, "agent": "policy-gradient-masks"}, "rounds are of levels"),
        ({"rounds": 2, "forms": "groups,sparse"}, "leave --forms"),
        ({"rounds": 2, "device_memory": "8GiB"}, "leave --device-memory"),
        ({"rounds": 2, "max_tokens": 100_000, "of": "model", "budgets": {"params": 0.1}}, "cannot be met"),
    ],
)
def test_what_is_refused_leaves_nothing(quick: dict[str, Any], tmp_path: Path, given: Any, told: str) -> None:
    limits = {} if "max_evals" in given else {"max_evals": None}
    with pytest.raises(UserError, match=told):
        autoprune.search(**quick | limits | given, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_file_of_rounds_says_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "rounds.json").write_text("{}")
    with pytest.raises(UserError, match=r"delete it, and `autoprune resume .*` writes it anew"):
        read_rounds(tmp_path)


def test_a_text_that_is_too_short_for_training(quick: dict[str, Any], tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("the network keeps one of the heads. " * 8, encoding="utf-8")
    few = {"data": str(text), "reconstruction_sequences": 2, "search_sequences": 2, "validation_sequences": 2}
    with pytest.raises(UserError, match="one step of training takes"):
        autoprune.search(**quick | few | {"rounds": 2, "round_tokens": 64, "max_evals": None, "max_tokens": 9000})


def test_what_does_not_go_with_rounds(
    run: Path, quick: dict[str, Any], tmp_path: Path, refused: Callable[..., str]
) -> None:
    with pytest.raises(UserError, match="leave --rounds"):
        autoprune.compare(["random"], **quick | {"rounds": 2}, out=tmp_path / "compared")
    with pytest.raises(UserError, match="max_tokens cannot change"):
        autoprune.resume(run, max_tokens=10**6)
    refused("search", "--rounds", "1", "--round-tokens", "512", seen=("round_tokens=512", "--rounds 2"))


def test_one_round_is_a_search_as_ever(quick: dict[str, Any], tmp_path: Path) -> None:
    result = autoprune.search(**quick | {"rounds": 1}, out=tmp_path / "run")
    assert not (tmp_path / "run" / "rounds.json").exists()
    assert rounds.resume(result.path).policy.units == result.policy.units
