"""Fine-tuning ends by epochs, steps, tokens or time, whichever is first; going on ends with the same bits."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprune import exporting, training
from autoprune.errors import UserError
from autoprune.recovery import finetuning
from autoprune.tasks.text_training import DEFAULTS, TextTraining
from autoprune.training import loop
from autoprune.training.settings import TrainingSettings
from tests.conftest import Answer

Cli = Callable[..., Answer]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def opened(finished_run: Path) -> tuple[Any, Any, Any]:
    assembly, policy = exporting.reopen(finished_run)
    splits = assembly.splits
    examples = torch.cat([splits.reconstruction, splits.search])  # 24 of 32 tokens
    return assembly, policy, TextTraining(assembly.view, examples, splits.validation)


def how(**own: Any) -> TrainingSettings:
    return training.settings_of(DEFAULTS, {"batch": 10, "lr": 1e-3, **own})


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"epochs": 2}, 6),  # of 10, 10 and 4 examples
        ({"epochs": 0}, 0),
        ({"max_steps": 4}, 4),
        ({"epochs": 1, "max_steps": 4}, 3),
        ({"epochs": 9, "max_steps": 4}, 4),
        ({"max_tokens": 24 * 32}, 3),
        ({"max_tokens": 24 * 32 - 1}, 2),
        ({"max_tokens": (24 + 19) * 32}, 4),
        ({"max_tokens": (48 + 10) * 32, "max_steps": 100}, 7),
        ({"max_time": 1.0}, None),
        ({"max_time": 1.0, "max_steps": 5}, 5),
    ],
)
def test_steps_of_limits(limits: dict[str, Any], steps: int | None) -> None:
    assert how(**limits).steps(24, 32) == steps


@pytest.mark.parametrize(("limits", "stop_at"), [({"max_steps": 7}, 4), ({"max_tokens": 48 * 32}, 3)])
def test_interrupted_ends_with_the_same_bits(
    opened: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], stop_at: int
) -> None:
    assembly, policy, training_set = opened
    settled, whole, again = how(**limits), finetuning.cut_out(assembly, policy), finetuning.cut_out(assembly, policy)
    done = training.train(whole, training_set, settled, tmp_path / "whole")
    assert done.steps == done.planned == settled.steps(24, 32)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    calls: list[float] = []

    def stop(stage: str, share: float) -> None:
        calls.append(share)
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(finetuning.cut_out(assembly, policy), training_set, settled, tmp_path / "twice", stop)
    gone_on = training.train(again, training_set, settled, tmp_path / "twice")
    assert gone_on.steps == done.steps
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    with pytest.raises(UserError, match="go on with the same settings"):
        training.train(finetuning.cut_out(assembly, policy), training_set, how(epochs=1), tmp_path / "twice")


class Clock:
    """Each look at it is half a second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.5
        return self.now


def test_time_ends_it_and_is_remembered(
    opened: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly, policy, training_set = opened
    monkeypatch.setattr(loop, "time", Clock())
    settled = how(epochs=100, max_time=8.0)
    first = training.train(finetuning.cut_out(assembly, policy), training_set, settled, tmp_path / "state")
    assert 0 < first.steps < 300
    assert first.planned == 300
    assert first.seconds >= 8
    assert f"{first.steps} of 300 steps" in first.told()
    assert "it was ended before the learning rate had fallen" in first.told()
    again = training.train(finetuning.cut_out(assembly, policy), training_set, settled, tmp_path / "state")
    assert (again.steps, again.seconds) == (first.steps, first.seconds)


def test_the_learning_rate_falls_with_time_where_nothing_else_ends_it(
    opened: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly, policy, training_set = opened
    rates: list[float] = []
    plain = loop.rate

    def seen(at: float, end: float, warmup: float) -> float:
        rates.append(plain(at, end, warmup))
        return rates[-1]

    monkeypatch.setattr(loop, "time", Clock())
    monkeypatch.setattr(loop, "rate", seen)
    done = training.train(
        finetuning.cut_out(assembly, policy), training_set, how(max_time=20.0, warmup=0.0), tmp_path / "state"
    )
    assert done.planned is None
    assert len(rates) == done.steps > 5
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9
    assert rates[-1] < 0.1


def test_limits_on_the_command_line(cli: Cli, finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    answer = cli("finetune", run, "--max-steps", "3", "--batch", "8")
    assert answer.status == 0, answer.err
    assert "trained:  3 steps, " in answer.out
    told = json.loads((run / "finetuned" / "result.json").read_text())
    assert told["training"]["steps"] == told["training"]["planned"] == 3
    assert told["seconds"] == told["training"]["seconds"] > 0
    exported = cli("export", run, tmp_path / "out")
    assert "without its fine-tuning" in exported.err
    assert str(run / "finetuned" / "network") in exported.err
    shutil.rmtree(run / "finetuned")
    assert "fine-tuning" not in cli("export", run, tmp_path / "out").err
    reported = json.loads(cli("finetune", run, "--max-tokens", "300", "--batch", "8", "--json").out)
    assert reported["training"]["steps"] == 1
    assert reported["training"]["tokens"] == 256


def test_limits_that_do_not_fit(refused: Refused, finished_run: Path) -> None:
    refused("finetune", finished_run, seen=("how long", "epochs, max_steps, max_tokens, max_time"))
    refused("finetune", finished_run, "--max-tokens", "100", seen=("max_tokens=100 are fewer", "256", "batch=8"))
    refused("finetune", finished_run, "--max-time", "0", seen=("max_time", "greater than 0"))
    refused("finetune", finished_run, "max_steps=few", seen=("max_steps", "'few'"))
