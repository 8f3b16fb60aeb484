"""What an export needs: the network, the policy and its level weights, and neither the text nor a metric."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import autoprune
from autoprune import assembly, exporting, rundir
from autoprune.api import evaluate
from autoprune.data import sequences, text
from autoprune.errors import UserError
from autoprune.exporting import export_policy


@pytest.fixture
def run(quick: dict[str, Any], tmp_path: Path) -> Path:
    text = tmp_path / "text.txt"
    shutil.copy(quick["data"], text)
    settings = {**quick, "data": str(text), "max_evals": 5, "agent": "random"}
    return autoprune.search(**settings, out=tmp_path / "run").path


def test_an_export_needs_no_text_and_no_metric(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, policy = exporting.reopen(run)
    before = export_policy(whole, policy, tmp_path / "before", "hf")
    (tmp_path / "text.txt").unlink()

    def never(*_: Any) -> None:
        raise AssertionError("not needed")

    for module, names in (
        (text, ("read_texts",)),
        (sequences, ("sequences", "split")),
        (assembly, ("collect", "build", "metric_of")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, never)
    reopened, policy = exporting.reopen(run)
    after = export_policy(reopened, policy, tmp_path / "after", "hf")
    assert (after / "model.safetensors").read_bytes() == (before / "model.safetensors").read_bytes()


def test_another_text_is_refused_only_where_it_is_read(run: Path, tmp_path: Path) -> None:
    text = (tmp_path / "text.txt").read_text()
    (tmp_path / "text.txt").write_text(text[1000:])
    reopened, policy = exporting.reopen(run)
    export_policy(reopened, policy, tmp_path / "out", "policy")
    with pytest.raises(UserError, match="not the one that was searched on"):
        evaluate(run)
    (tmp_path / "text.txt").write_text(text)
    assert torch.equal(reopened.splits.validation, exporting.reopen(run)[0].splits.validation)
    shutil.rmtree(reopened.store.directory)
    rebuilt, policy = exporting.reopen(run)
    export_policy(rebuilt, policy, tmp_path / "again", "policy")
    assert rundir.policy_path(run).is_file()
