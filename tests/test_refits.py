"""The refit by default: what is validated is what is exported, and searches find the same as without it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoprune
from autoprune.exporting import reopen
from autoprune.files.cache import cache_directory
from autoprune.policy import Policy
from autoprune.provenance import proposal_of
from autoprune.refit_text import told
from autoprune.refits import refit
from autoprune.result import SearchResult
from autoprune.validation import mean_losses
from tests.test_cli import Cli

SILENT: Any = lambda stage, share: None  # noqa: E731


@pytest.fixture(scope="module")
def settings(quick: dict[str, Any]) -> dict[str, Any]:
    """A search whose refit has enough sequences to be of use."""
    return quick | {"agent": "random", "max_evals": 12, "reconstruction_sequences": 32}


@pytest.fixture(scope="module")
def result(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """A finished search with a refit."""
    return autoprune.search(**settings, out=tmp_path_factory.mktemp("refits") / "run")


@pytest.fixture(scope="module")
def plain(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """The same without it."""
    return autoprune.search(**settings, refit=False, out=tmp_path_factory.mktemp("refits") / "plain")


def scores(result: SearchResult) -> list[tuple[Any, Any]]:
    """Policies and their losses, to the bit."""
    lines = [json.loads(line) for line in (result.path / "journal.jsonl").read_text().splitlines()]
    return [(line.get("levels"), line.get("losses")) for line in lines]


def validation_loss(result: SearchResult, network: torch.nn.Module) -> float:
    """KL to the dense network on the validation split."""
    assembly = result.assembly
    assembly.placer.release()
    with torch.no_grad():
        tokens_NT = assembly.splits.validation
        dense, pruned = (model(tokens_NT).logits.float().log_softmax(-1) for model in (assembly.loaded.model, network))
    return float((dense.exp() * (dense - pruned)).sum(-1).mean())


def test_a_search_finds_the_same_with_and_without_it(result: SearchResult, plain: SearchResult) -> None:
    assert scores(result) == scores(plain)
    assert result.policy.units == plain.policy.units
    assert [row.validation_loss for row in result.table[:2]] == [row.validation_loss for row in plain.table[:2]]
    assert plain.policy.refit is None


def test_the_numbers_say_which_is_which(result: SearchResult, plain: SearchResult) -> None:
    known = result.policy.refit
    assert known is not None
    assert [row.name for row in result.table] == ["dense", "uniform", "best"]
    assert known.found["loss"] == pytest.approx(plain.loss)
    assert known.search["refitted"] < known.search["found"]  # type: ignore[operator]
    assert result.loss == result.table[-1].validation_loss == result.policy.losses["validation"]["best"]["loss"]
    assert result.loss != plain.loss
    assert known.sequences == 32
    assert known.seconds > 0
    sentence = told(result.policy)
    assert sentence is not None
    assert f"its loss is {plain.loss:.4f}" in sentence
    assert "refitted on 32" in repr(result)
    assert told(plain.policy) is None


def test_what_is_validated_is_what_is_exported(result: SearchResult, plain: SearchResult, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    result.export(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert validation_loss(result, loaded) == pytest.approx(result.loss, rel=1e-4)
    assert validation_loss(result, result.model()) == pytest.approx(result.loss, rel=1e-4)
    assert validation_loss(result, result.model(refit=False)) == pytest.approx(plain.loss, rel=1e-4)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "is refitted on 32" in card


def test_the_command_line_says_it_and_leaves_it_out(
    result: SearchResult, plain: SearchResult, cli: Cli, tmp_path: Path
) -> None:
    assert "best is refitted on" in cli("show", result.path).out
    assert "refitted" not in cli("show", plain.path).out
    assert cli("export", result.path, tmp_path / "found", "--no-refit").status == 0
    assert cli("export", plain.path, tmp_path / "plain").status == 0
    found, own = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("found", "plain"))
    assert found == own
    kept = Policy.load(tmp_path / "found" / "policy.json")
    assert kept.refit is None
    assert kept.losses["validation"]["best"]["loss"] == pytest.approx(plain.loss)
    page = cli("report", result.path)
    assert page.status == 0
    assert "best is refitted on" in (result.path / "report.html").read_text()


def test_evaluating_a_run_is_of_the_refitted_network(result: SearchResult) -> None:
    row = autoprune.evaluate(result.path)
    assert row["perplexity"] == pytest.approx(result.table[-1].perplexity, rel=1e-5)


def test_a_lost_or_damaged_file_is_computed_again(result: SearchResult) -> None:
    assert result.policy.refit is not None
    assembly, policy = reopen(result.path)
    proposal, digest = proposal_of(assembly, policy), result.policy.refit.digest
    files = [path for path in (cache_directory() / "refits").rglob("*.safetensors")
             if refit(assembly, proposal, digest).digest == digest]  # fmt: skip
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:-8] + b"damaged!")
    again = refit(assembly, proposal, digest)
    assert again.seconds > 0
    assert again.digest == digest, "the same data and the same network give the same weights"


def test_an_earlier_policy_is_exported_as_it_was(result: SearchResult, tmp_path: Path) -> None:
    """Files of earlier versions have no `refit`."""
    import shutil

    shutil.copytree(result.path, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "policy.json").read_text())
    del record["refit"]
    (tmp_path / "run" / "policy.json").write_text(json.dumps(record))
    old = autoprune.load(tmp_path / "run")
    assert isinstance(old, SearchResult)
    assert old.policy.refit is None
    assert validation_loss(old, old.model()) == pytest.approx(
        validation_loss(result, result.model(refit=False)), rel=1e-5
    )


def test_it_takes_no_part_of_the_validation_split(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    from autoprune import refits
    from autoprune.training.refit import place_refitted

    def spy(placer: Any, proposal: Any, tokens_NT: torch.Tensor, *rest: Any) -> None:
        seen.append(tokens_NT)
        place_refitted(placer, proposal, tokens_NT, *rest)

    monkeypatch.setattr(refits, "place_refitted", spy)
    assembly, policy = reopen(result.path)
    refit(assembly, proposal_of(assembly, policy), "of another file")
    assert torch.equal(seen[0], assembly.splits.reconstruction)


def test_a_refit_that_is_of_no_use_is_not_kept(settings: dict[str, Any], tmp_path: Path) -> None:
    notices: list[str] = []
    from autoprune import refit_choice

    class Notes(autoprune.Callback):
        def on_notice(self, notice: str) -> None:
            notices.append(notice)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refit_choice, "mean_losses", lambda *_: np.array([[1.0], [1.5]]))
        found = autoprune.search(**settings, callbacks=[Notes()], out=tmp_path / "run")
    assert found.policy.refit is None
    assert any("does not lower the loss on the search split (1.5000, 1.0000 without it)" in one for one in notices)


def test_refitted_and_other_networks_are_measured_in_their_order(result: SearchResult) -> None:
    assembly, policy = reopen(result.path)
    proposal = proposal_of(assembly, policy)
    network = refit(assembly, proposal)
    some_NT, dense = assembly.splits.validation, assembly.space.dense
    rows = mean_losses(assembly, some_NT, [network, dense, proposal, network], ["kl"], SILENT)[:, 0]
    assert rows[0] == rows[3]
    assert rows[1] == pytest.approx(0, abs=1e-6)
    assert rows[0] == pytest.approx(result.loss)
    assert policy.refit is not None
    assert rows[2] == pytest.approx(policy.refit.found["loss"])
