"""Every exporter over every type: what is written is what was scored, loaded by a process that knows nothing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from autoprune import registry, study
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.space import Levels
from tests import families

SCRIPT = Path(__file__).parent.parent / "check_exports.py"
FORMS = {"pruned": {}, "uniform": {"uniform": True}}


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
    assembly.evaluator(tokens_BT, "ce").place(levels)
    logits: torch.Tensor = assembly.loaded.model(input_ids=tokens_BT).logits
    return logits


def checked(order: str, *directories: Path) -> dict[str, Any]:
    """What `check_exports.py` finds in a fresh process."""
    command = [sys.executable, str(SCRIPT), order, *map(str, directories)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return {Path(directory).name: result for directory, result in found.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def parameters(root: Path, text_file: str) -> dict[str, int]:
    """Every type exported in every form beside its reference logits; the parameters that its policy should leave."""
    expected = {}
    tokens_BT = families.random_tokens(2, 13)
    for name in families.names():
        assembly = tiny_assembly(name, root / "dense" / name, text_file)
        for form, options in FORMS.items():
            levels = awkward_levels(assembly, densest=int(form == "uniform"))  # so that padding has heads to leave out
            policy = study.make_policy(assembly, levels, {})
            path = study.export_policy(assembly, policy, root / f"{name}-{form}", "hf", **options)
            reference = {"tokens": tokens_BT, "logits": placed_logits(assembly, levels, tokens_BT).contiguous()}
            save_file(reference, path.with_suffix(".safetensors"))
        expected[name] = study.total_params(assembly, awkward_levels(assembly))
    return expected


@pytest.fixture(scope="module")
def loaded(root: Path, parameters: dict[str, int]) -> dict[str, Any]:
    """The non-uniform exports, in a process that imports autoprune before transformers."""
    return checked("before", *(root / f"{name}-pruned" for name in parameters))


@pytest.fixture(scope="module")
def loaded_by_stock(root: Path, parameters: dict[str, int]) -> dict[str, Any]:
    """All exports, in a process without autoprune."""
    return checked("without", *(root / f"{name}-{form}" for name in parameters for form in FORMS))


def is_exact(found: dict[str, Any]) -> None:
    assert "error" not in found, found["error"]
    assert found["lost"] == []
    assert max(found["logits"], found["padded"], found["round trip, eager"]) < 1e-5
    assert found["same config"]
    assert found["use_cache"] is True
    assert found["default"] == found["rows"] == found["no cache"] == found["static"] == found["in chunks"]


@pytest.mark.parametrize("name", families.names())
def test_pruned_loads_exactly(
    name: str, root: Path, parameters: dict[str, int], loaded: dict[str, Any], loaded_by_stock: dict[str, Any]
) -> None:
    found = loaded[f"{name}-pruned"]
    is_exact(found)
    assert found["class"].startswith("Pruned")
    assert found["parameters"] == parameters[name]
    sizes = [(root / part / "model.safetensors").stat().st_size for part in (f"{name}-pruned", f"dense/{name}")]
    assert sizes[0] < 0.8 * sizes[1]
    assert "`autoprune` but Transformers does not recognize" in loaded_by_stock[f"{name}-pruned"]["error"]


@pytest.mark.parametrize("name", families.names())
def test_uniform_is_stock(name: str, loaded_by_stock: dict[str, Any]) -> None:
    found = loaded_by_stock[f"{name}-uniform"]
    is_exact(found)
    assert not found["class"].startswith("Pruned")


def test_autoprune_may_come_after_transformers(root: Path, parameters: dict[str, int]) -> None:
    found = checked("after", *(root / f"{name}-pruned" for name in ("llama", "gpt2", "opt")))
    for result in found.values():
        is_exact(result)


@pytest.mark.parametrize("exporter", registry.names("exporters"))
def test_exporters_take_a_policy_and_a_path(
    exporter: str, tmp_path: Path, text_file: str, files_of: Callable[[Path], set[str]]
) -> None:
    assembly = tiny_assembly("llama", tmp_path / "dense", text_file)
    policy = study.make_policy(assembly, awkward_levels(assembly), {})
    study.export_policy(assembly, policy, tmp_path / "out", exporter)
    first = files_of(tmp_path)
    study.export_policy(assembly, policy, tmp_path / "out", exporter)
    assert files_of(tmp_path) == first


@pytest.fixture
def files_of() -> Callable[[Path], set[str]]:
    return lambda path: {str(file.relative_to(path)) for file in path.rglob("*")}
