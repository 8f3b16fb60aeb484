"""A level store is looked through before anything is taken from it; a large one is not read whole."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from autoprune.errors import UserError
from autoprune.files.reading import explained
from autoprune.level import group_levels
from autoprune.levels import store as stores
from autoprune.levels.seal import Seal, check, sealed
from autoprune.levels.store import LevelStore, file_of
from autoprune.space import Unit
from tests.test_fuzz import make_store

UNIT = Unit("0.mlp", "mlp", 0, 4, group_levels(4, (4, 2, 0)), 10)


def resealed(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors, with a seal that fits them."""
    save_file(tensors, path / file_of(UNIT))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = [sealed(path / file_of(UNIT))]
    (path / "manifest.json").write_text(json.dumps(manifest))


def in_manifest(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(manifest | changes))

    return change


def flipped(path: Path) -> None:
    """One bit of a weight."""
    data = bytearray((path / file_of(UNIT)).read_bytes())
    data[-1] ^= 1
    (path / file_of(UNIT)).write_bytes(data)


ORDER = torch.tensor([2, 0, 3, 1])


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (flipped, "has changed since"),
        (lambda path: save_file({"order": ORDER}, path / file_of(UNIT)), "bytes"),
        (lambda path: resealed(path, {"order": torch.tensor([0, 1, 2, 2])}), "does not fit"),
        (lambda path: resealed(path, {"order": torch.arange(5)}), "does not fit"),
        (lambda path: resealed(path, {"order": ORDER.float()}), "does not fit"),
        (lambda path: resealed(path, {"order": ORDER - 1}), "does not fit"),
        (lambda path: resealed(path, {"level.1": torch.zeros(3, 2)}), "has no order"),
        (lambda path: resealed(path, {"order": ORDER, "level.1": torch.zeros(3, 3)}), "does not fit"),
        (lambda path: resealed(path, {"order": ORDER, "level.9": torch.zeros(3, 2)}), "does not fit"),
        (lambda path: resealed(path, {"order": ORDER, "level.1": ORDER.clone()}), "does not fit"),
        (lambda path: resealed(path, {"order": ORDER, "norm.1": torch.zeros(3)}), "does not fit"),
        (lambda path: resealed(path, {"order": ORDER, "other": torch.zeros(3)}), "does not fit"),
        (in_manifest(version=3), "version"),
        (in_manifest(version="4"), "version"),
        (in_manifest(units=["1.mlp"]), "other units"),
        (in_manifest(files=[]), "shorter"),
        (in_manifest(statistics=[]), "statistics"),
    ],
)
def test_a_store_that_is_not_what_was_built(tmp_path: Path, damage: Callable[[Path], None], seen: str) -> None:
    path = make_store(tmp_path / "store", UNIT)
    LevelStore(path, [UNIT])
    time.sleep(0.01)  # so that the time of change differs
    damage(path)
    with pytest.raises(UserError, match=rf"level store .*{seen}.*delete that folder"):
        LevelStore(path, [UNIT])


def test_of_a_large_store_sizes_and_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_store(tmp_path / "store", UNIT)
    flipped(path)
    monkeypatch.setattr(stores, "SMALL", 10)
    LevelStore(path, [UNIT])  # as the docstring says, this is not seen
    file = tmp_path / "big.safetensors"
    save_file({"level.1": torch.zeros(2**24)}, file)
    seal = Seal.model_validate(sealed(file))
    begun = time.process_time()
    for _ in range(100):
        check(file, seal, whole=False)
    assert time.process_time() - begun < 1, "64 MiB, a hundred times"


def test_a_full_device_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError), explained("the level store", tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory")
