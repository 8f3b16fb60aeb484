"""Every form of export of every family: what is written is what was scored, loaded by a process that knows nothing."""

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

from autoprune import registry
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.exporting import export_policy
from autoprune.networks.images import logits_of
from autoprune.policy import Policy
from autoprune.provenance import make_policy, proposal_of
from autoprune.space import Levels
from autoprune.validation import total_params
from tests import families, image_families, tiny_searches

WAYS = ("default", "rows", "static", "in chunks", "prompt lookup", "assisted")
"""Of greedy decoding; those behind the second need a cache."""
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
        last = len(unit.levels) - 1
        thinned = (unit.block + (unit.kind == "mlp")) % last
        levels.append(last if (unit.block, unit.kind) in gone else max(thinned, min(densest, last - 1)))
    return tuple(levels)


def placed_logits(assembly: Assembly, levels: Levels, given: torch.Tensor) -> torch.Tensor:
    """Logits of the live network under a policy, by its own forward, of tokens or pixels."""
    assembly.placer.place(levels)
    return logits_of(assembly.loaded.model(given))


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


def export(assembly: Assembly, levels: Levels, path: Path, to: str = "hf", **options: Any) -> Path:
    """An export with its reference beside it."""
    if assembly.loaded.tokenizer is not None:
        given = {"input_ids": families.random_tokens(2, 13)}
    else:
        given = {"pixel_values": torch.randn(3, 3, image_families.SIDE, image_families.SIDE)}
    reference = given | {"logits": placed_logits(assembly, levels, *given.values()).contiguous()}
    save_file(reference, path.with_suffix(".safetensors"))
    return export_policy(assembly, make_policy(assembly, levels, {}), path, to, **options)


def is_exact(found: dict[str, Any]) -> None:
    """Same logits by every way of loading, same tokens by every way of generating."""
    assert "error" not in found, found["error"]
    assert found["lost"] == []
    assert max(found[way] for way in ("logits", "pickled", "base", "round trip, eager")) < 1e-5
    assert found["same config"]
    if "no cache" in found:
        assert found["padded"] < 1e-5
        assert found["beam"] == found["beam, no cache"]
        ways = [found[way] for way in WAYS if way in found]
        assert all(way == found["no cache"] for way in ways), found
        assert len(ways) == (len(WAYS) if found["use_cache"] else 2)


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
    assert "import autoprune" in (pruned / "README.md").read_text()

    narrow = awkward_levels(assembly, densest=1)  # so that padding may leave heads out
    found = stock.check(export(assembly, narrow, tmp_path / "uniform", uniform=True))
    is_exact(found)
    assert found["class"] == type(assembly.loaded.model).__name__


def test_autoprune_may_come_after_transformers(tmp_path: Path, text_file: str) -> None:
    with closing(Loader("after")) as loader:
        for name in ("llama", "gpt2", "opt"):
            assembly = tiny_assembly(name, tmp_path / "dense" / name, text_file)
            is_exact(loader.check(export(assembly, awkward_levels(assembly), tmp_path / name)))


@pytest.mark.filterwarnings("ignore:the export saves nothing")
@pytest.mark.parametrize("name", image_families.names())
def test_networks_that_read_images(
    name: str, tmp_path: Path, text_file: str, monkeypatch: pytest.MonkeyPatch, ours: Loader, stock: Loader
) -> None:
    """Also: forms that a network does not have are refused, and the evaluator's loss is that of what is written."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    assembly = assemble(load_config(None, tiny_searches.settings(name, tmp_path / "dense", text_file)))
    levels = awkward_images(assembly)
    if assembly.loaded.is_plain:
        found = stock.check(export(assembly, levels, tmp_path / name, "module"))
        assert found["logits"] < 1e-5
        assert found["parameters"] == total_params(assembly, levels)
        refused(assembly, levels, tmp_path, "hf", "--to module")
    else:
        found = ours.check(export(assembly, levels, tmp_path / "pruned"))
        is_exact(found)
        assert found["parameters"] == total_params(assembly, levels)
        found = stock.check(export(assembly, levels, tmp_path / "uniform", uniform=True))
        is_exact(found)
        assert found["class"] == type(assembly.loaded.model).__name__
        refused(assembly, levels, tmp_path, "module", "--to hf")
    scored = assembly.evaluator(assembly.splits.search, "ce").score_each([levels], range(3)).mean()
    assembly.placer.place(levels)
    logits = assembly.view(assembly.splits.search).flatten(0, 1)
    labels = assembly.view.labels(assembly.splits.search).flatten()
    assert scored == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4)


def awkward_images(assembly: Assembly) -> Levels:
    """Every third unit as sparse as it may be, the others at changing levels."""
    return tuple(
        len(u.levels) - 1 if i % 3 == 1 else i % (len(u.levels) - 1) for i, u in enumerate(assembly.space.units)
    )


def refused(assembly: Assembly, levels: Levels, folder: Path, to: str, way: str) -> None:
    """A form that a network does not have: one sentence that names the one that it has."""
    with pytest.raises(UserError, match=way):
        export_policy(assembly, make_policy(assembly, levels, {}), folder / "refused", to)
    assert not (folder / "refused").exists()


@pytest.mark.parametrize(
    "exporter", [name for name in registry.names("exporters") if name not in ("module", "compressed-tensors")]
)
def test_exporters_take_a_policy_and_a_path(exporter: str, tmp_path: Path, text_file: str) -> None:
    assembly = tiny_assembly("llama", tmp_path / "dense", text_file)
    policy = make_policy(assembly, awkward_levels(assembly), {})
    export_policy(assembly, policy, tmp_path / "out", exporter)
    first = sorted(tmp_path.rglob("*"))
    assert tmp_path / "out" in first
    export_policy(assembly, policy, tmp_path / "out", exporter)
    assert sorted(tmp_path.rglob("*")) == first
    held = tmp_path / "out"
    again = Policy.load(held / "policy.json" if held.is_dir() else held)
    assert proposal_of(assembly, again) == awkward_levels(assembly)
