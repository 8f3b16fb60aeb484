"""`benchmarks/recovery.py` of a network that reads images: accuracies by stage, and a second call goes on."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.data import digits
from tests.test_oracle import BENCHMARKS

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def recovery() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("recovery")
        for name in ("recovery", "recovery_images", "cifar_resnet", "common"):
            sys.modules.pop(name, None)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    images, labels = digits.read()
    for name, some in (("train", slice(0, 700)), ("test", slice(700, None))):
        np.savez(tmp_path / f"{name}.npz", images=images[some], labels=labels[some])
    data = [str(tmp_path / f"{name}.npz") for name in ("train", "test")]
    settings = ["sequence_length=8", f"image_mean=[{digits.MEAN}]", f"image_std=[{digits.STD}]"]
    return [
        "recovery.py", "--model", "tiny-cnn", "--data", data[0], "--test", data[1],
        "--metric", "macs", "--removed", "0.6", "--search-tokens", "4000", "--recovery-tokens", "768",
        "--out", str(tmp_path / "rows.jsonl"), "--json", *(word for one in settings for word in ("--set", one)),
    ]  # fmt: skip


def test_images(
    recovery: Any, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [*arguments, "--agents", "uniform"])
    recovery.main()
    monkeypatch.setattr(sys, "argv", [*arguments, "--agents", "uniform,evolution:slope_sequences=0"])
    recovery.main()
    out = capsys.readouterr().out
    told = json.loads(out.splitlines()[-1])
    assert told["quality"] == "accuracy"
    assert told["dense"] > 90
    for row in told["agents"].values():
        assert all(10 < row[stage] <= 100 for stage in ("found", "refitted", "recovered"))
        assert row["recovery_tokens"] == 768
    assert told["agents"]["uniform"]["found"] < told["dense"]
    assert told["agents"]["evolution:slope_sequences=0"]["search_tokens"] <= 4000
    rows = [line for line in out.splitlines() if line.startswith("# {")]
    assert len(rows) == 2, "the second call measures what is new"


def test_rows_of_other_settings_are_refused(
    recovery: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(arguments[arguments.index("--out") + 1])
    out.write_text(json.dumps({"agent": "uniform", "seed": 0, "model": "tiny-cnn"}) + "\n")
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(recovery.UserError, match=r"rows with another .*metric.*: give another --out"):
        recovery.main()
    monkeypatch.setattr(sys, "argv", ["recovery.py", "--model", "tiny-cnn"])
    with pytest.raises(recovery.UserError, match="give --data FILE"):
        recovery.main()
