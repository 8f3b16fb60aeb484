"""Every exporter over every type: what is written is what was scored, loaded by a process that knows nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from autoprune import registry, study
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.space import Levels
from autoprune.validation import total_params
from tests import families

SCRIPT = Path(__file__).parent.parent / "check_exports.py"


def tiny_assembly(
    name: str, model: Path, text: str, dtype: torch.dtype = torch.float32, shape: Any = None, **settings: Any
) -> Assembly:
    """A type's tiny network, ready for exports; `shape` is configuration that differs."""
    quick = {"sequence_length": 16, "reconstruction_sequences": 8, "search_sequences": 2, "validation_sequences": 2}
    given = {
        "model": str(families.save_tiny(name, model, dtype, **shape or {})),
        "data": text,
        "levels": 4,
        **quick,
        **settings,
    }
    return assemble(load_config(None, given))


def awkward_levels(assembly: Assembly, densest: int = 0) -> Levels:
    """No attention in layer 0, no MLP in layer 1, nothing of layer 2, and widths that differ in all others.

    No unit is denser than level `densest`.
    """
    gone = {(0, "attention"), (1, "mlp"), (2, "attention"), (2, "mlp")}
    levels = []
    for unit in assembly.space.units:
        last = len(unit.kept) - 1
        thinned = (unit.block + (unit.kind == "mlp")) % last
        levels.append(last if (unit.block, unit.kind) in gone else max(thinned, min(densest, last - 1)))
    return tuple(levels)


def placed_logits(assembly: Assembly, levels: Levels, tokens_BT: torch.Tensor) -> torch.Tensor:
    """Logits of the live network under a policy, by transformers' own forward."""
    assembly.placer.place(levels)
    logits: torch.Tensor = assembly.loaded.model(input_ids=tokens_BT).logits
    return logits


class Loader:
    """A fresh process that runs `check_exports.py`."""

    def __init__(self, order: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), order],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def check(self, directory: Path) -> dict[str, Any]:
        """What it finds in a directory."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{directory}\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def ours() -> Iterator[Loader]:
    """Imports autoprune, then transformers."""
    with closing(Loader("before")) as loader:
        yield loader


@pytest.fixture(scope="module")
def stock() -> Iterator[Loader]:
    """Does not import autoprune."""
    with closing(Loader("without")) as loader:
        yield loader


def export(assembly: Assembly, levels: Levels, path: Path, **options: Any) -> Path:
    """An export with its reference beside it."""
    tokens_BT = families.random_tokens(2, 13)
    reference = {"tokens": tokens_BT, "logits": placed_logits(assembly, levels, tokens_BT).contiguous()}
    save_file(reference, path.with_suffix(".safetensors"))
    return study.export_policy(assembly, study.make_policy(assembly, levels, {}), path, "hf", **options)


def is_exact(found: dict[str, Any]) -> None:
    """Same logits by every way of loading, same tokens by every way of generating."""
    assert "error" not in found, found["error"]
    assert found["lost"] == []
    assert max(found["logits"], found["padded"], found["round trip, eager"]) < 1e-5
    assert found["same config"]
    ways = [found[way] for way in ("default", "rows", "static", "in chunks") if way in found]
    assert all(way == found["no cache"] for way in ways)
    assert len(ways) == (4 if found["use_cache"] else 2)


@pytest.mark.parametrize("name", families.names())
def test_both_forms_load_exactly(name: str, tmp_path: Path, text_file: str, ours: Loader, stock: Loader) -> None:
    assembly = tiny_assembly(name, tmp_path / "dense", text_file)
    levels = awkward_levels(assembly)
    pruned = export(assembly, levels, tmp_path / "pruned")
    found = ours.check(pruned)
    is_exact(found)
    assert found["use_cache"]
    assert found["class"].startswith("Pruned")
    assert found["parameters"] == total_params(assembly, levels)
    sizes = [(path / "model.safetensors").stat().st_size for path in (pruned, tmp_path / "dense")]
    assert sizes[0] < 0.8 * sizes[1]
    assert "`autoprune` but Transformers does not recognize" in stock.check(pruned)["error"]

    narrow = awkward_levels(assembly, densest=1)  # so that padding may leave heads out
    found = stock.check(export(assembly, narrow, tmp_path / "uniform", uniform=True))
    is_exact(found)
    assert found["class"] == type(assembly.loaded.model).__name__


def test_autoprune_may_come_after_transformers(tmp_path: Path, text_file: str) -> None:
    with closing(Loader("after")) as loader:
        for name in ("llama", "gpt2", "opt"):
            assembly = tiny_assembly(name, tmp_path / "dense" / name, text_file)
            is_exact(loader.check(export(assembly, awkward_levels(assembly), tmp_path / name)))


@pytest.mark.parametrize("exporter", [name for name in registry.names("exporters") if name != "module"])
def test_exporters_take_a_policy_and_a_path(exporter: str, tmp_path: Path, text_file: str) -> None:
    assembly = tiny_assembly("llama", tmp_path / "dense", text_file)
    policy = study.make_policy(assembly, awkward_levels(assembly), {})
    study.export_policy(assembly, policy, tmp_path / "out", exporter)
    first = sorted(tmp_path.rglob("*"))
    assert tmp_path / "out" in first
    study.export_policy(assembly, policy, tmp_path / "out", exporter)
    assert sorted(tmp_path.rglob("*")) == first
