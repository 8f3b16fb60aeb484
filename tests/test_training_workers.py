"""Fine-tuning in several processes ends as in one, also where one of them is killed."""

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import autoprune
from autoprune.errors import UserError
from autoprune.files.arrays import read_tensors
from autoprune.recovery import crew
from tests.conftest import Answer

TOLERANCE = 2e-6
"""Of weights and losses: gradients of two processes are summed in another order. AdamW's steps are as long as the
learning rate whatever the gradient, so that of tiny gradients more is seen; the learning rate is 3e-4."""
HOW: dict[str, Any] = {"max_steps": 8, "batch": 8, "at_once": 4, "progress": False}


class Watch(autoprune.Callback):
    """Remembers what is told, and kills a worker after one of the steps."""

    def __init__(self, run: Path, kill_at: int | None = None) -> None:
        self.run, self.kill_at = run, kill_at
        self.losses: dict[int, float] = {}
        self.told: list[int] = []
        self.notices: list[str] = []

    def on_step(self, step: int, measures: Mapping[str, float]) -> None:
        self.told.append(step)
        self.losses[step] = measures["loss"]
        if step == self.kill_at:
            file = next((self.run / "finetuned").glob("workers-*/pid-1"))
            os.kill(int(file.read_text()), signal.SIGKILL)

    def on_notice(self, text: str) -> None:
        self.notices.append(text)


def trained(finished_run: Path, run: Path, kill_at: int | None = None, **how: Any) -> tuple[dict[str, Tensor], Watch]:
    """The state after a fine-tuning of a copy of the run, and what was told of it."""
    run.mkdir()
    for name in ("config.yaml", "policy.json"):
        shutil.copy(finished_run / name, run)
    watch = Watch(run, kill_at)
    autoprune.finetune(run, callbacks=[watch], **HOW | how)
    assert not list((run / "finetuned").glob("workers-*")), "the folder of the workers is gone"
    return read_tensors(run / "finetuned" / "state.safetensors"), watch


def furthest(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest difference between trained weights."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a if name.startswith("network."))


@pytest.fixture(scope="module")
def one(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Watch]:
    """One process, with as many examples in a step as two have."""
    return trained(finished_run, tmp_path_factory.mktemp("one") / "run", batch=16)


@pytest.fixture(scope="module")
def two(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Watch]:
    """Two processes."""
    return trained(finished_run, tmp_path_factory.mktemp("two") / "run", workers=2)


@pytest.mark.slow
def test_two_workers_are_one_with_twice_the_batch(one: Any, two: Any) -> None:
    assert furthest(one[0], two[0]) <= TOLERANCE
    assert two[1].told == list(range(1, 9))
    assert two[1].losses == pytest.approx(one[1].losses, abs=TOLERANCE)


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(finished_run: Path, two: Any, tmp_path: Path) -> None:
    state, watch = trained(finished_run, tmp_path / "run", kill_at=5, workers=2, save_every=2)
    for name, tensor in two[0].items():
        assert torch.equal(tensor, state[name]), name
    assert watch.told == list(range(1, 9)), "each step is told once"
    assert len(watch.notices) == 1
    assert watch.notices[0].startswith("worker 1 was killed by signal 9: training goes on from the state after step ")


@pytest.mark.slow
def test_a_sharded_network_is_trained_as_a_whole_one(finished_run: Path, one: Any, tmp_path: Path) -> None:
    state, watch = trained(finished_run, tmp_path / "run", workers=2, sharding="fsdp")
    assert furthest(one[0], state) <= TOLERANCE
    assert watch.losses == pytest.approx(one[1].losses, abs=TOLERANCE)


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_stopped(finished_run: Path, one: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"

    class Stop(Watch):
        def on_step(self, step: int, measures: Mapping[str, float]) -> None:
            super().on_step(step, measures)
            raise autoprune.StopSearch

    run.mkdir()
    for name in ("config.yaml", "policy.json"):
        shutil.copy(finished_run / name, run)
    stopped = autoprune.finetune(run, callbacks=[Stop(run)], workers=2, **HOW)
    assert stopped.training is not None
    assert 1 <= stopped.training.steps <= 8
    assert stopped.training.planned == 8
    autoprune.finetune(run, **HOW | {"batch": 4, "accumulate": 4})
    assert furthest(one[0], read_tensors(run / "finetuned" / "state.safetensors")) <= TOLERANCE
    with pytest.raises(UserError, match=r"accumulate=4.*same settings"):
        autoprune.finetune(run, **HOW | {"batch": 4})


@pytest.mark.slow
def test_what_is_wrong_in_a_worker_is_told_as_in_one_process(
    finished_run: Path, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    answer: Answer = cli("finetune", run, "--max-steps", "4", "--workers", "2", "--lr", "1e30", "warmup=0", "clip=0")
    assert answer.status == 2
    assert "fine-tuning has diverged in epoch 1" in answer.err
    assert "Traceback" not in answer.err


def test_workers_that_cannot_be(finished_run: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("finetune", finished_run, "--epochs", "1", "sharding=fsdp", seen=("sharding=fsdp", "--workers"))
    refused("finetune", finished_run, "--epochs", "1", "--workers", "0", seen=("workers",))

    def live(self: Any) -> dict[str, Any]:
        return {"model": "live:Net_12345678"}

    class Config:
        device = "cpu"
        model_dump = live

    class Given:
        config = Config()

    given: Any = Given()
    with pytest.raises(UserError, match="the model 'Net' was given in Python, and workers=2"):
        crew.check_workers(given, autoprune.training.TrainingSettings(1, workers=2))
    Config.device, Config.model_dump = "cuda", lambda self: {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="workers=2 need a GPU each, and 1 are here"):
        crew.check_workers(given, autoprune.training.TrainingSettings(1, workers=2))
    refused("finetune", finished_run, "--epochs", "1", "--workers", "9000", seen=("workers=9000", "cores"))
    assert not (finished_run / "finetuned").exists()


@pytest.mark.slow
def test_workers_that_die_at_once_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []

    class Told(autoprune.Callback):
        def on_notice(self, text: str) -> None:
            notices.append(text)

    (tmp_path / "job.json").write_text(json.dumps({}))  # a folder in which no worker can begin
    monkeypatch.setattr(crew, "GRACE", 60.0)
    together = crew._Crew(tmp_path, autoprune.training.TrainingSettings(1, workers=1), Told(), lambda: 0)
    with pytest.raises(UserError, match=r"worker 0 ended with status 1, 3 times at the same place: \w+"):
        together.go()
    assert len(notices) == 2
