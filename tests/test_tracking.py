"""Trackers: what they are told of searches, comparisons and fine-tunings, and what becomes of one that fails."""

import csv
import json
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autoprune
from autoprune import registry
from autoprune.errors import UserError
from autoprune.policy import Policy
from autoprune.tracking import following
from tests.conftest import Answer

Cli = Callable[..., Answer]
Refused = Callable[..., str]
Rows = list[tuple[int, str, float]]
OWN: dict[str, Any] = {"agent_options": {"slope_sequences": 0}}
QUIET = ["ignore::DeprecationWarning", "ignore::sqlalchemy.exc.SAWarning"]
pytestmark = [pytest.mark.filterwarnings(one) for one in QUIET]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tracker of this machine's is used."""
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")


# -- readers ---------------------------------------------------------------------------------------------------------


def of_csv(run: Path, kind: str = "search") -> Rows:
    with (run / "tracking" / f"{kind}.csv").open(newline="") as file:
        head, *rows = list(csv.reader(file))
    assert head == ["step", "name", "value"]
    return [(int(step), name, float(value)) for step, name, value in rows]


def of_tensorboard(run: Path, kind: str = "search") -> Rows:
    import importlib

    module = "tensorboard.backend.event_processing.event_accumulator"
    accumulator: Any = importlib.import_module(module).EventAccumulator

    events = accumulator(str(run / "tracking" / "tensorboard" / kind), size_guidance={"scalars": 0})
    events.Reload()
    return [
        (one.step, name, one.value) for name in events.Tags()["scalars"] for one in events.Scalars(name)
    ]  # fmt: skip


def of_mlflow(run: Path, kind: str = "search") -> Rows:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'tracking' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("autoprune")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], filter_string=f"tags.kind = '{kind}'")
    assert found.info.status == "FINISHED"
    assert found.data.params
    return [
        (one.step, name, one.value)
        for name in found.data.metrics
        for one in client.get_metric_history(found.info.run_id, name)
    ]


def of_wandb(run: Path, kind: str = "search") -> Rows:
    """From the files that W&B keeps while it is offline: blocks of 32 KiB of records in LevelDB's format."""
    from wandb.proto import wandb_internal_pb2

    rows, names = [], set()
    for file in sorted((run / "tracking" / "wandb").glob("offline-run-*/*.wandb")):
        history, jobs = [], []
        for data in _records(file.read_bytes()):
            record: Any = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                jobs.append(record.run.job_type)
                names.add(record.run.run_id) if record.run.job_type == kind else None
            elif record.WhichOneof("record_type") == "history":
                items = {"/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in record.history.item}
                step = int(record.history.step.num or items.get("_step", 0))
                history += [(step, key, one) for key, one in items.items() if not key.startswith("_")]
        rows += history if kind in jobs else []
    assert len(names) == 1, "a run that goes on is the same run"
    return rows


def _records(data: bytes) -> list[bytes]:
    found, begun, at = [], b"", 7  # behind the head of the file
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        begun += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(begun)
            begun = b""
    return found


READERS: dict[str, Callable[..., Rows]] = {
    "csv": of_csv, "tensorboard": of_tensorboard, "mlflow": of_mlflow, "wandb": of_wandb,
}  # fmt: skip
ALL = sorted(READERS)


def test_every_registered_tracker_is_read_back_here() -> None:
    assert registry.names("trackers") == ALL


def values(rows: Rows, name: str) -> list[float]:
    return [value for _, key, value in sorted(rows, key=lambda row: row[0]) if key == name]


# -- searches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_search_is_followed_and_finds_the_same(
    name: str, quick: dict[str, Any], finished_run: Path, tmp_path: Path
) -> None:
    if name != "csv":
        pytest.importorskip(name)
    result = autoprune.search(**quick, **OWN, out=tmp_path / "run", track=name)
    assert Policy.load(result.path / "policy.json").units == Policy.load(finished_run / "policy.json").units
    assert not [*result.path.rglob("requirements.txt")], "no tracker is told what is installed here"
    rows = READERS[name](result.path)
    losses = values(rows, "search/best_loss")
    assert len(losses) == len(result.history)
    assert losses == pytest.approx([loss for _, _, loss in result.history], rel=1e-6)
    assert {step for step, key, _ in rows if key == "search/best_loss"} == {step for step, _, _ in result.history}
    assert values(rows, "search/evaluations")[-1] == result.spent.evals
    assert values(rows, "incumbent/loss")[-1] == pytest.approx(result.policy.losses["search"], rel=1e-6)
    cost = result.policy.costs["params"]
    assert values(rows, "incumbent/params")[-1] == pytest.approx(cost.policy / cost.dense, rel=1e-6)
    for row in result.table:
        assert values(rows, f"{row.name}/validation_loss") == pytest.approx([row.validation_loss], rel=1e-5, abs=1e-6)
    assert max(Counter(rows).values()) == 1


@pytest.mark.parametrize("name", ALL)
def test_a_run_that_goes_on_is_told_nothing_twice(name: str, quick: dict[str, Any], tmp_path: Path) -> None:
    if name != "csv":
        pytest.importorskip(name)

    class Stop(autoprune.Callback):
        def on_scores(self, objective: Any) -> None:
            if objective.spent.evals >= 15:
                objective.stop()

    first = autoprune.search(**quick, **OWN, out=tmp_path / "run", track=name, callbacks=[Stop()])
    assert first.interrupted
    again = autoprune.resume(first.path)
    once_more = autoprune.resume(first.path)
    assert once_more.history == again.history
    rows = READERS[name](again.path)
    assert len(values(rows, "search/best_loss")) == len(again.history)
    assert max(Counter(rows).values()) == 1
    assert len(values(rows, "best/validation_loss")) == 2  # where it was stopped, and at its end


def test_a_run_that_goes_on_with_other_limits(quick: dict[str, Any], tmp_path: Path) -> None:
    first = autoprune.search(**quick | {"max_evals": 10}, **OWN, out=tmp_path / "run", track="csv")
    again = autoprune.resume(first.path, max_evals=30)
    rows = of_csv(again.path)
    assert max(Counter(rows).values()) == 1
    assert len(values(rows, "search/best_loss")) == len(again.history)


def test_a_tracker_that_comes_later_is_told_everything(quick: dict[str, Any], tmp_path: Path) -> None:
    first = autoprune.search(**quick, **OWN, out=tmp_path / "run")
    assert not (first.path / "tracking").exists(), "off by default"
    again = autoprune.resume(first.path, track="csv")
    assert len(values(of_csv(again.path), "search/best_loss")) == len(again.history)


def test_several_by_a_flag(cli: Cli, quick_arguments: list[str]) -> None:
    pytest.importorskip("tensorboard")
    answer = cli("search", *quick_arguments, "--track", "csv, tensorboard", "--out", "run", "--agent", "uniform")
    assert answer.status == 0, answer
    run = Path("run")
    assert {key for _, key, _ in of_csv(run)} == {key for _, key, _ in of_tensorboard(run)}
    assert "track: csv,tensorboard" in (run / "config.yaml").read_text()


def test_no_password_and_no_place_of_a_storage_is_told(quick: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    storage = f"sqlite:///{tmp_path}/study.db?password=secret"
    told = following.Tracking({}, autoprune.Callback(), None)
    from autoprune.config import load_config

    told.on_start(load_config(None, quick | {"storage": storage}), tmp_path)
    assert "secret" not in str(told._settings)


# -- comparisons and fine-tunings ------------------------------------------------------------------------------------


def test_a_comparison_and_its_searches(quick: dict[str, Any], tmp_path: Path) -> None:
    found = autoprune.compare(["uniform", "random"], seeds=2, out=tmp_path / "two", track="csv", **quick)
    searches = found.league["searches"]
    rows = of_csv(found.path, "comparison")
    for one in searches:
        assert one["loss"] in values(rows, f"{one['agent']}/loss")
        own = of_csv(found.path / one["run"])
        assert values(own, "best/validation_loss") == pytest.approx([one["loss"]])
    assert [step for step, key, _ in rows if key.endswith("/seed")] == [0, 1, 2, 3]
    autoprune.compare(["uniform", "random"], seeds=2, out=tmp_path / "two", track="csv", **quick)
    assert of_csv(found.path, "comparison") == rows


@pytest.mark.filterwarnings("ignore:.*made it worse.*:RuntimeWarning")
@pytest.mark.parametrize("name", ["csv", "tensorboard"])
def test_a_fine_tuning(name: str, finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    done = autoprune.finetune(run, max_steps=4, track=name)
    rows = READERS[name](run, "recovery")
    assert [step for step, key, _ in rows if key == "recovery/loss"] == [1, 2, 3, 4]
    assert values(rows, "after/ce") == pytest.approx([done.after.loss], rel=1e-6)
    autoprune.finetune(run, max_steps=4, track=name)
    assert READERS[name](run, "recovery") == rows


@pytest.mark.filterwarnings("ignore:.*made it worse.*:RuntimeWarning")
def test_a_fine_tuning_by_a_flag(cli: Cli, finished_run: Path) -> None:
    shutil.copytree(finished_run, "run")
    assert cli("finetune", "run", "--max-steps", "2", "--track", "csv").status == 0
    assert values(of_csv(Path("run"), "recovery"), "recovery/lr")


# -- what goes wrong -------------------------------------------------------------------------------------------------

FAILING = """
from autoprune.extend import Tracker

class Failing(Tracker):
    moment = "log"

    def start(self, run):
        if self.moment == "start":
            raise OSError("no network")

    def log(self, step, values):
        if self.moment == "log":
            raise SystemExit(3)

    def finish(self):
        raise KeyError("what")

class AtStart(Failing):
    moment = "start"

class AtFinish(Failing):
    moment = "finish"
"""


@pytest.mark.parametrize(
    ("name", "seen"), [("Failing", "SystemExit"), ("AtStart", "no network"), ("AtFinish", "KeyError")]
)
def test_one_that_fails_is_told_once_and_left_out(
    name: str, seen: str, cli: Cli, quick_arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(FAILING)
    answer = cli("search", *quick_arguments, "--track", f"own.py:{name},csv", "--out", "run", "--agent", "random")
    assert answer.status == 0, answer
    assert answer.err.count(f"the tracker 'own.py:{name}' failed and is left out") == 1
    assert seen in answer.err
    assert "Traceback" not in answer.err
    assert values(of_csv(Path("run")), "best/validation_loss"), "the others go on"


def test_a_slow_tracker_delays_no_search(
    quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from autoprune.tracking.csv import Csv

    begin = Csv.start

    def slow(self: Csv, run: Any) -> None:
        time.sleep(2.0)
        begin(self, run)

    monkeypatch.setattr(Csv, "start", slow)
    result = autoprune.search(**quick, agent="uniform", out=tmp_path / "run", track="csv")
    assert result.spent.seconds < 2.0
    assert values(of_csv(result.path), "best/validation_loss"), "it is waited for at the end"


def test_a_tracker_that_does_not_end(
    quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import time

    monkeypatch.setattr(following, "ENDING", 0.1)
    monkeypatch.setattr("autoprune.tracking.csv.Csv.finish", lambda self: time.sleep(1.0))
    assert autoprune.search(**quick, agent="uniform", out=tmp_path / "run", track="csv").policy
    assert "'csv' did not end within" in caplog.text


def test_a_full_disk_ends_no_search(quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autoprune.tracking.csv.Csv._append", full)
    assert autoprune.search(**quick, agent="uniform", out=tmp_path / "run", track="csv").policy


@pytest.mark.parametrize(
    ("track", "seen"),
    [
        ("tensorbord", ("no tracker is called 'tensorbord'", "Did you mean 'tensorboard'?")),
        ("own.py:Mine", ("there is no file",)),
        ("csv,nothing", ("no tracker is called 'nothing'", "csv, mlflow, tensorboard, wandb")),
    ],
)
def test_a_wrong_name_is_told_before_the_search(
    refused: Refused, quick_arguments: list[str], track: str, seen: tuple[str, ...]
) -> None:
    refused("search", *quick_arguments, "--track", track, "--out", "run", seen=seen)
    assert not Path("run").exists()
    refused("compare", *quick_arguments, "--track", track, "--out", "two", "--agents", "uniform,random", seen=seen)
    assert not Path("two").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_not_there(
    name: str, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    known = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda one, *rest: None if one == name else known(one, *rest))
    with pytest.raises(UserError, match=rf"track={name} needs the package {name}.*pip install 'autoprune\[track\]'"):
        autoprune.search(**quick, out=tmp_path / "run", track=name)
    assert not (tmp_path / "run").exists()


def test_wandb_without_a_login_asks_for_nothing(
    quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setattr("autoprune.tracking.wandb._mode", lambda: "online")
    monkeypatch.setattr("autoprune.tracking.wandb._logged_in", lambda wandb: False)
    with pytest.raises(UserError, match=r"no login here: `wandb login`.*WANDB_MODE=offline"):
        autoprune.search(**quick, out=tmp_path / "run", track="wandb")


def test_nothing_is_written_through_a_link(quick: dict[str, Any], tmp_path: Path) -> None:
    first = autoprune.search(**quick, agent="uniform", out=tmp_path / "run", track="csv")
    shutil.rmtree(first.path / "tracking")
    (tmp_path / "elsewhere").mkdir()
    (first.path / "tracking").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        autoprune.resume(first.path)


def test_a_damaged_state_doubles_nothing_but_begins_anew(quick: dict[str, Any], tmp_path: Path) -> None:
    first = autoprune.search(**quick, agent="uniform", out=tmp_path / "run", track="csv")
    (first.path / "tracking" / "state.json").write_text("{]")
    autoprune.resume(first.path)
    assert json.loads((first.path / "tracking" / "state.json").read_text())["csv"]["search"]["steps"]


def test_a_list_of_names(quick: dict[str, Any]) -> None:
    from autoprune.config import load_config

    assert load_config(None, {"track": ["csv", "wandb", "csv"]}).track == "csv,wandb"
    assert load_config(None, {"track": ""}).track is None
    with pytest.raises(UserError, match="track"):
        load_config(None, {"track": 3})


def test_no_process_waits_without_end_for_a_tracker() -> None:
    hangs = """
import threading
from autoprune.tracking.own_thread import OwnThread
done, left = OwnThread("done", 60.0), OwnThread("left", 0.1)
left.submit(threading.Event().wait)
done.submit(lambda: threading.Event().wait(0.3)).add_done_callback(lambda future: print("was waited for", flush=True))
"""
    ended = subprocess.run([sys.executable, "-c", hangs], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "was waited for\n", ended.stderr
