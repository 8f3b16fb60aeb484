"""Every registered tracker: it begins, is told numbers, ends and goes on, and writes where it may."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from autoprune import registry
from autoprune.ports.tracker import TrackedRun, Tracker, load_tracker

SETTINGS: dict[str, Any] = {"agent": "evolution", "budgets": {"params": 0.5}, "levels": [1.0, 0.0], "data": None}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "tracking").mkdir(parents=True)
    return TrackedRun(tmp_path / "run" / "tracking", "run", "search", None, SETTINGS)


def made(name: str) -> Tracker:
    if name not in ("csv", "tensorboard"):
        pytest.importorskip(name)
    load_tracker(name).check()
    return load_tracker(name)()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", registry.names("trackers"))
def test_a_run_begins_ends_and_goes_on(name: str, run: TrackedRun, tmp_path: Path) -> None:
    first = made(name)
    found = first.start(run)
    assert found is None or isinstance(found, str)
    first.log(3, {"search/best_loss": 1.5, "incumbent/table-8d0f": 0.25})
    first.log(3, {"incumbent/loss": -1e300})
    first.finish()
    second = made(name)
    assert second.start(dataclasses.replace(run, id=found)) == found
    second.log(8, {"search/best_loss": 1.0})
    second.finish()
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert written
    assert all(path.is_relative_to(run.folder) for path in written)


@pytest.mark.parametrize("name", registry.names("trackers"))
def test_it_is_described(name: str) -> None:
    tracker = load_tracker(name)
    assert issubclass(tracker, Tracker)
    assert tracker.__doc__
