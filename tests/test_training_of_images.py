"""Candidates of networks that read images, compared after training through the command; what is told where they cannot.

`tiny-cnn` on the digits: a search takes about a second.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoprune
from autoprune import study
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.ports.candidate_training import TRAINERS, Trainer
from autoprune.training import candidate
from autoprune.training.learner import Learner
from autoprune.training.step import DivergedError
from tests.conftest import Answer
from tests.test_training_stages import lines_of

pytest.importorskip("sklearn")

TRAINS: dict[str, Any] = {"train_tokens": 48, "train_from": 0.3, "trained": 2}
CNN: dict[str, Any] = {
    "model": "tiny-cnn", "budgets": {"macs": 0.5}, "max_tokens": 25_000, "sequence_length": 8,
    "reconstruction_sequences": 32, "search_sequences": 16, "validation_sequences": 8,
}  # fmt: skip


def searched(trainer: Trainer, **own: Any) -> dict[str, Any]:
    """Settings of a search whose candidates are trained."""
    tokens = {"train_tokens": 16} if trainer == "refit" else {}  # the reconstruction split has 256 images
    return CNN | {"agent_options": TRAINS | {"trainer": trainer, "first_tokens": 64} | tokens | own}


def trained_lines(run: Path) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines())
    return [line for line in lines if line.get("steps")]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, trainer: Trainer) -> None:
    config = load_config(None, searched(trainer))
    whole = study.start(config, tmp_path / "whole")
    assert 0 < whole.spent.training < whole.spent.tokens <= 25_000
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    trained = [number for number, line in enumerate(lines) if '"steps":' in line]
    (tmp_path / "killed").mkdir()
    config.save(tmp_path / "killed" / "config.yaml")
    (tmp_path / "killed" / "journal.jsonl").write_text("".join(lines[: trained[0] + 2]) + '{"levels": [1')
    resumed = study.resume(tmp_path / "killed")
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")
    assert resumed.policy.units == whole.policy.units
    assert (resumed.spent.tokens, resumed.spent.training) == (whole.spent.tokens, whole.spent.training)


@pytest.mark.filterwarnings("ignore:the refit made it worse")
def test_through_the_command(cli: Callable[..., Answer], tmp_path: Path) -> None:
    settings = [f"{key}={json.dumps(value)}" for key, value in CNN.items() if key not in ("model", "budgets")]
    options = ["agent_options.train_tokens=48", "agent_options.trainer=norms", "agent_options.first_tokens=64"]
    arguments = ["--model", "tiny-cnn", "--budget", "macs=0.5", *settings, *options]
    answer = cli("search", *arguments, "--out", tmp_path / "run")
    assert answer.status == 0, answer.err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["spent"]["training"] > 0
    recovered = cli("finetune", tmp_path / "run", "--epochs", "0", "--json")
    assert recovered.status == 0, recovered.err
    assert {"dense", "before", "refitted", "after"} <= json.loads(recovered.out).keys()


def test_several_workers_are_refused_with_a_reason(refused: Callable[..., str], tmp_path: Path) -> None:
    arguments = ["search", "--model", "tiny-cnn", "--workers", "2", "--out", tmp_path / "run"]
    refused(*arguments, "agent_options.train_tokens=64", seen=("one worker", "leave --workers"))


def test_fewer_images_than_the_stages_ask_for_are_told(tmp_path: Path) -> None:
    """Once the refit reads all of the reconstruction split, and training reads its images again."""
    little = "too little for one comparison"
    fewer: tuple[tuple[Trainer, str], ...] = (
        ("refit", "256 in the reconstruction split"),
        ("full", "they are read more than once"),
    )
    for trainer, there in fewer:
        settings = searched(trainer, train_tokens=100_000) | {"max_tokens": 4000}
        with pytest.warns(RuntimeWarning, match=little), pytest.warns(RuntimeWarning, match=f"images, and .*{there}"):
            autoprune.search(**settings, out=tmp_path / trainer)


@pytest.mark.parametrize("agent", ["evolution", "evopress"])
def test_where_every_training_diverges_the_search_goes_on_without(tmp_path: Path, agent: str) -> None:
    """The losses of those that have failed are infinite in the journal, and the answer is of the untrained ones."""
    own = {"stages": [[64, 2], [128, 1]], "offspring": 4, "trainer": "full", "train_lr": 1e30, "train_tokens": 48}
    settings = searched("full", train_lr=1e30) if agent == "evolution" else CNN | {"agent_options": own}
    with pytest.warns(RuntimeWarning, match=r"every candidate diverged .* a smaller train_lr than 1e\+30"):
        result = autoprune.search(**settings | {"agent": agent}, out=tmp_path / "run")
    with pytest.warns(RuntimeWarning, match="every candidate diverged"):
        assert study.resume(tmp_path / "run").policy.units == result.policy.units
    trained = trained_lines(tmp_path / "run")
    assert trained
    assert not any(np.isfinite(np.array(one["losses"], float)).any() for one in trained)
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert lines.index(trained[-1]) < len(lines) - 10, "the search went on"
    assert np.isfinite(result.loss)


def test_one_candidate_that_diverges_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first network that is trained diverges; the others are compared."""
    whole, failed = Learner.advance, list[Learner]()

    def advance(self: Learner, steps: int, tick: Callable[[], None]) -> None:
        if not failed or failed[0] is self:
            failed.append(self)
            raise DivergedError("diverged")
        whole(self, steps, tick)

    monkeypatch.setattr(Learner, "advance", advance)
    result = autoprune.search(**searched("norms"), out=tmp_path / "run")
    finite = [bool(np.isfinite(np.array(line["losses"], float)).all()) for line in trained_lines(tmp_path / "run")]
    assert not finite[0]
    assert all(finite[1:])
    assert np.isfinite(result.loss)


def test_too_little_memory_names_a_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "free_bytes", lambda device: 300_000)
    with pytest.raises(UserError, match=r"trainer=full needs about .* are free: take trainer=refit"):
        autoprune.search(**searched("full"), out=tmp_path / "run")
