"""Networks at the edge: a single unit, half precision, one image a forward pass."""

from pathlib import Path

import numpy as np
import pytest

import autoprune
from autoprune.errors import UserError

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
"""


@pytest.fixture
def single(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A network of one unit."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "one.py").write_text(NETWORK, encoding="utf-8")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 129)
    images = rng.integers(0, 56, (129, 8, 8, 3), dtype=np.uint8) + (50 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    splits = {"reconstruction_sequences": 6, "search_sequences": 4, "validation_sequences": 4, "sequence_length": 8}
    return {"model": f"{tmp_path}/one.py:make", "data": str(tmp_path / "images.npz"), "levels": 4, **splits}


@pytest.mark.parametrize("agent", ["evolution", "random", "greedy", "evopress", "ppo", "tpe"])
def test_a_network_of_one_unit(single: dict[str, object], tmp_path: Path, agent: str) -> None:
    result = autoprune.search(**single, agent=agent, budgets={"macs": 0.6}, max_evals=6, out=tmp_path / "run")  # type: ignore[arg-type]
    assert len(result.policy.units) == 1
    assert result.policy.costs["macs"].policy <= 0.6 * result.policy.costs["macs"].dense


def test_steps_of_one_image(single: dict[str, object], tmp_path: Path) -> None:
    autoprune.search(**single, agent="uniform", budgets={"macs": 0.6}, out=tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="larger batch"):
        autoprune.finetune(tmp_path / "run", epochs=1, batch=1)
    # 97 images: the last step has one left
    recovered = autoprune.finetune(tmp_path / "run", epochs=4, batch=32, lr=0.01)
    assert recovered.after.ce < recovered.before.ce


def test_batchnorm_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    chosen = {"model": "tiny-cnn", "agent": "uniform", "budgets": {"macs": 0.4}}
    whole = autoprune.search(**chosen, out=tmp_path / "whole")  # type: ignore[arg-type]
    half = autoprune.search(**chosen, dtype="bfloat16", out=tmp_path / "half")  # type: ignore[arg-type]
    assert half.loss == pytest.approx(whole.loss, rel=0.2, abs=0.01)
    assert autoprune.finetune(tmp_path / "half", epochs=0).path.is_dir()
