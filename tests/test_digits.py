"""The embedded network that reads digits, and what it was trained on and not."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

import autoprune
from autoprune import exporting
from autoprune.config import is_module, load_config
from autoprune.data.images import IMAGENET, read_images
from autoprune.errors import UserError
from autoprune.models.tiny_cnn import TinyCNN, tiny_cnn
from autoprune.networks.family import Family
from autoprune.networks.modules import load_module
from tests.conftest import Answer

sklearn = pytest.importorskip("sklearn.datasets")

from autoprune.data import digits  # noqa: E402 (behind the check for scikit-learn)

QUICK: dict[str, Any] = {"budgets": {"params": 0.5}, "levels": 5, "max_evals": 12, "agent": "random"}


def test_halves_share_no_image_and_are_all_there_are() -> None:
    (held, held_labels), (trained, trained_labels) = digits.read(), digits.read(held_out=False)
    assert len(held) + len(trained) == 1797
    assert len(held) == 1034  # of 32 a sample: 16 for reconstruction, 8 for search and 8 for validation
    assert not {image.tobytes() for image in held} & {image.tobytes() for image in trained}
    assert held.dtype == np.uint8
    assert (held.min(), held.max()) == (0, 255)
    counted = np.bincount(np.concatenate([held_labels, trained_labels]))
    assert np.array_equal(counted, np.bincount(sklearn.load_digits().target))
    assert trained.mean() / 255 == pytest.approx(digits.MEAN, abs=0.002)
    assert trained.std() / 255 == pytest.approx(digits.STD, abs=0.002)


def test_it_reads_digits_that_it_was_not_trained_on() -> None:
    images = read_images("digits")
    with torch.no_grad():
        logits = tiny_cnn()(images.pixels(torch.arange(len(images))))
    assert (logits.argmax(-1) == images.labels).double().mean() > 0.98
    assert functional.cross_entropy(logits, images.labels) < 0.06


def test_its_family_and_size() -> None:
    loaded = load_module("tiny-cnn")
    assert isinstance(loaded.family, Family)
    assert loaded.family.name == "resnet"
    assert loaded.n_params == 25082
    with torch.no_grad():
        assert TinyCNN()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_its_settings_are_those_of_digits() -> None:
    config = load_config(None, {"model": "tiny-cnn"})
    assert (config.data, config.sequence_length, config.image_mean, config.image_std) == ("digits", 32, None, None)
    assert load_config(None, {"model": "tiny-cnn", "data": "other.npz"}).data == "other.npz"
    assert load_config(None, {"model": "own.py:net"}).data is None
    assert [is_module(name) for name in ("tiny-cnn", "tiny-llama", "./tiny-cnn", None)] == [True, False, False, False]


def test_means_are_the_datas_own_where_none_is_given(tmp_path: Path) -> None:
    images = read_images("digits")
    assert [images.mean.item(), images.std.item()] == pytest.approx([digits.MEAN, digits.STD])
    assert read_images("digits", [0.5]).mean.flatten().tolist() == [0.5]
    coloured, grey = (np.zeros((4, 8, 8, channels), np.uint8) for channels in (3, 1))
    np.savez(tmp_path / "coloured.npz", images=coloured, labels=np.arange(4))
    np.savez(tmp_path / "grey.npz", images=grey, labels=np.arange(4))
    read = read_images(str(tmp_path / "coloured.npz"))
    assert read.mean.flatten().tolist() == pytest.approx(IMAGENET[0])
    assert read.std.flatten().tolist() == pytest.approx(IMAGENET[1])
    with pytest.raises(UserError, match=r"image_mean has ImageNet's three values .* have 1 channel: give image_mean"):
        read_images(str(tmp_path / "grey.npz"))


def test_a_search_holds_its_budget_and_reopens(tmp_path: Path) -> None:
    result = autoprune.search("tiny-cnn", out=tmp_path / "run", **{**QUICK, "agent": "evolution", "max_evals": 60})
    params = result.policy.costs["params"]
    assert params.policy <= 0.5 * params.dense
    dense, uniform, best = result.table
    assert dense.accuracy is not None
    assert dense.accuracy > 0.97
    assert 0 < best.validation_loss < uniform.validation_loss
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (saved["data"], saved["image_mean"]) == ("digits", None)
    assembly, policy = exporting.reopen(tmp_path / "run")
    assert [len(split) for split in vars(assembly.splits).values() if isinstance(split, torch.Tensor)] == [16, 8, 8]
    assert policy == result.policy
    exported = result.export(tmp_path / "out", to="module")
    assert '"autoprune.models.tiny_cnn:tiny_cnn"' in (exported / "config.json").read_text()


def test_half_of_it_is_not_free(tmp_path: Path) -> None:
    """The embedded network must have something to lose, or there is nothing to search."""
    uniform = autoprune.search("tiny-cnn", out=tmp_path / "run", refit=False, **{**QUICK, "agent": "uniform"}).table[-1]
    assert uniform.validation_loss > 0.02


def test_commands_take_it_with_no_other_option(cli: Callable[..., Answer]) -> None:
    answer = cli("search", "--model", "tiny-cnn", "--agent", "random", "--max-evals", 5, "--out", "run")
    assert answer.status == 0, answer.err
    assert "accuracy" in answer.out
    export = next(line for line in answer.out.splitlines() if line.startswith("export:"))
    assert cli(*export.split("autoprune ")[1].split()).status == 0
    assert cli("resume", "run").status == 0
    assert "tiny-cnn" in cli("list", "models").out


def test_digits_of_another_network(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from autoprune.models.tiny_cnn import tiny_cnn as net\n")
    result = autoprune.search(f"{tmp_path}/own.py:net", "digits", out=tmp_path / "run", **QUICK)
    assert result.table[0].accuracy is not None
    assert result.table[0].accuracy > 0.97


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"scikit-learn: pip install 'autoprune\[vision\]'"):
        read_images("digits")


def test_image_models_need_data_of_their_own(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from autoprune.models.tiny_cnn import tiny_cnn as net\n")
    refused("search", "--model", "own.py:net", seen=("images are needed", "digits"))
