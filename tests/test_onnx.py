"""ONNX exports: a process without torch gives the pruned network's logits, or nothing is written."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.data.images import ImageSet
from autoprune.errors import UserError
from autoprune.exporters import onnx, onnx_check
from autoprune.exporting import export_policy
from autoprune.networks.images import ImageView
from autoprune.provenance import make_policy
from autoprune.space import Levels
from tests import families, tiny_searches
from tests.contracts.test_exporters import awkward_images, awkward_levels, placed_logits, tiny_assembly
from tests.test_images import NETWORK, settings

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

SCRIPT = Path(__file__).parent / "check_onnx.py"
LAYERS = 3
SHAPES = [(1, 1), (4, 2), (2, 13), (1, 40)]
"""Of tokens: one, fewer and more than were traced (8) or checked (16), and than attention's window where it slides."""
POLICY = (1, 4, 2)
"""Of the network that reads images: one convolution is gone, others are narrow."""
BRANCHING = """
class Branching(Net):
    def forward(self, x):
        return super().forward(x) * (1 if x.sum() > 0 else 2)

def branching():
    model = Branching()
    model.load_state_dict(net().state_dict())
    return model
"""


def fresh(directory: Path, inputs: Sequence[Tensor], logits: Sequence[Tensor]) -> list[float]:
    """Differences from expected logits in a process that knows neither torch nor autoprune."""
    references = {f"input.{n}": given.contiguous() for n, given in enumerate(inputs)}
    references |= {f"logits.{n}": expected.contiguous() for n, expected in enumerate(logits)}
    file = directory.with_suffix(".safetensors")
    save_file(references, file)
    command = [sys.executable, str(SCRIPT), str(directory), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[float] = json.loads(done.stdout)
    return found


def written(assembly: Assembly, levels: Levels, path: Path) -> dict[str, Any]:
    """What `config.json` of an export says."""
    export_policy(assembly, make_policy(assembly, levels, {}), path, "onnx")
    described: dict[str, Any] = json.loads((path / "config.json").read_text())
    return described


# -- language models -------------------------------------------------------------------------------------------------


def of_layers(name: str) -> dict[str, Any]:
    """Configuration that makes a family's tiny network one of `LAYERS` layers."""
    special = families.VARIANTS.get(name, (name, families.SPECIAL.get(name, {})))[1]
    fewer: dict[str, Any] = {"num_hidden_layers": LAYERS}
    if "layer_types" in special:
        fewer["layer_types"] = special["layer_types"][:LAYERS]
    return fewer


@pytest.mark.parametrize(
    ("name", "dtype", "others"),
    [
        ("llama", torch.float32, {"device_memory": 230_000}),
        ("gpt2", torch.float32, {}),
        ("opt", torch.bfloat16, {}),
        pytest.param("gemma2", torch.float32, {}, marks=pytest.mark.slow),
    ],
)
def test_text(name: str, dtype: torch.dtype, others: dict[str, Any], tmp_path: Path, text_file: str) -> None:
    """Also where blocks wait in the host's memory, and of a checkpoint in another dtype."""
    assembly = tiny_assembly(name, tmp_path / "dense", text_file, dtype, of_layers(name), **others)
    levels = awkward_levels(assembly)
    described = written(assembly, levels, tmp_path / "out")
    assert described["checkpoint_dtype"] == str(dtype).removeprefix("torch.")
    assert described["inputs"] == [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "sequence"]}]
    assert described["max_positions"] == 64
    assert described["check"]["shapes"] == [[1, 16], [3, 4]]
    tokens = [families.random_tokens(*shape) for shape in SHAPES]
    logits = [placed_logits(assembly, levels, some) for some in tokens]
    assert max(fresh(tmp_path / "out", tokens, logits)) < 1e-5
    names = {path.name for path in (tmp_path / "out").iterdir()}
    words = {"tokenizer.json", "tokenizer_config.json"}
    assert names == {"model.onnx", "config.json", "policy.json", "README.md", "export.json", *words}
    dense = tmp_path / "dense" / "model.safetensors"
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 0.9 * dense.stat().st_size * 4 / dtype.itemsize


# -- networks that read images ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Assembly]:
    """The assembly of one of the functions in `NETWORK` or `BRANCHING`."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "net.py").write_text(NETWORK + BRANCHING)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 12, 12, 3), dtype=np.uint8), rng.integers(0, 4, 200)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return lambda name: assemble(load_config(None, settings(folder, model=f"{folder}/net.py:{name}")))


@pytest.fixture(scope="module")
def assembly(made: Callable[[str], Assembly]) -> Assembly:
    return made("net")


@pytest.fixture(scope="module")
def earlier(assembly: Assembly, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that tests copy."""
    path = tmp_path_factory.mktemp("earlier") / "out"
    written(assembly, POLICY, path)
    return path


def check_images(assembly: Assembly, levels: Levels, path: Path) -> None:
    """An export gives the logits of the placed network, for pixels normalised as its `config.json` says."""
    described = json.loads((path / "config.json").read_text())
    assert described["inputs"] == [{"name": "pixels", "dtype": "float32", "shape": ["batch", 3, 12, 12]}]
    assert described["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 4]}]
    assert described["check"]["shapes"] == [[1, 3, 12, 12], [3, 3, 12, 12]]
    view, numbers = assembly.view, assembly.splits.validation.flatten()
    assert isinstance(view, ImageView)
    assert isinstance(view.images, ImageSet)
    scale = described["normalisation"]
    mean, std = (torch.tensor(scale[name]).view(-1, 1, 1) for name in ("mean", "std"))
    pixels = [(view.images.images[numbers[:n]].float() / scale["scale"] - mean) / std for n in (1, 2, 7)]
    assembly.placer.place(levels)
    logits = [view(numbers[None, : len(some)])[0] for some in pixels]
    assembly.placer.release()
    assert max(fresh(path, pixels, logits)) < 1e-5


def test_images(assembly: Assembly, earlier: Path) -> None:
    check_images(assembly, POLICY, earlier)


@pytest.mark.parametrize(
    "name", ["convnext", "mobilenet-v2", "plain-bottleneck", "resnet-bottleneck", "traced-dense", "vit"]
)
def test_families_that_read_images(name: str, tmp_path: Path) -> None:
    """One of each family; DeiT is a ViT."""
    made = assemble(load_config(None, tiny_searches.settings(name, tmp_path / "dense", "")))
    levels = awkward_images(made)
    described = written(made, levels, tmp_path / "out")
    pixels = [torch.randn(count, *described["inputs"][0]["shape"][1:]) for count in (1, 3)]
    logits = [placed_logits(made, levels, some) for some in pixels]
    assert max(fresh(tmp_path / "out", pixels, logits)) < 1e-5


def test_weights_of_large_networks_lie_beside(
    assembly: Assembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A protobuf holds 2 GB; torch's threshold is lowered."""
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 0)
    written(assembly, (4, 4, 4), tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx.data").is_file()
    check_images(assembly, (4, 4, 4), tmp_path / "out")


def test_graphs_are_the_same_again_and_tell_nothing_of_this_machine(
    assembly: Assembly, earlier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing is left of an earlier export whose weights lay beside."""
    shutil.copytree(earlier, tmp_path / "out")
    (tmp_path / "out" / "model.onnx.data").touch()
    written(assembly, POLICY, tmp_path / "out")
    assert "".join(capfd.readouterr()) == ""
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "model.onnx",
        "config.json",
        "policy.json",
        "README.md",
        "export.json",
    }
    graph = (tmp_path / "out" / "model.onnx").read_bytes()
    assert graph == (earlier / "model.onnx").read_bytes()
    assert not [told for told in (b"site-packages", b".py", str(Path.home()).encode()) if told in graph]


# -- what is refused -------------------------------------------------------------------------------------------------


def refused(assembly: Assembly, path: Path, *seen: str) -> None:
    """An export that raises one sentence, and leaves everything as it was."""
    before = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}
    with pytest.raises(UserError) as error:
        written(assembly, (2, 1, 0), path)
    assert all(word in str(error.value) for word in seen), str(error.value)
    assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()} == before
    assert {entry.name for entry in path.parent.iterdir()} <= {path.name}
    assert all(width.kept == width.width.groups for row in assembly.view.widths for width in row)


def test_other_logits_are_refused(
    assembly: Assembly, earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left behind, and an earlier export stays."""
    run, trace = onnx_check._run, onnx._traced
    programs: list[Any] = []

    def traced_once(*given: Any) -> Any:
        if not programs:
            programs.append(trace(*given))
        return programs[0]

    def wrong(file: Path, samples: Sequence[Tensor]) -> list[Tensor]:
        *right, last = run(file, samples)
        return [*right, last + 1e-3 * last.abs().max()]

    monkeypatch.setattr(onnx, "_traced", traced_once)
    monkeypatch.setattr(onnx_check, "_run", wrong)
    refused(assembly, tmp_path / "out", "differ", "[3, 3, 12, 12]", "autoprune list exporters")
    assert not (tmp_path / "out").exists()
    shutil.copytree(earlier, tmp_path / "out")
    refused(assembly, tmp_path / "out", "differ")


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ([1.0, -2.0], None),
        ([1.0, -2.00019], None),
        ([1.0, -2.00021], "0.00021"),
        ([1.0, float("nan")], "nan"),
        ([1.0], r"\[1, 1\]"),
    ],
)
def test_tolerance(given: list[float], refusal: str | None) -> None:
    expected, sample = torch.tensor([[1.0, -2.0]]), torch.zeros(1, 1)
    if refusal is None:
        assert onnx_check._compared(sample, expected, torch.tensor([given]))[1] == 2
    else:
        with pytest.raises(UserError, match=refusal):
            onnx_check._compared(sample, expected, torch.tensor([given]))


def test_a_graph_that_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="onnxruntime does not run the ONNX graph"):
        onnx_check.checked(tmp_path / "model.onnx", nn.Identity(), [torch.zeros(1, 1)])


def test_a_network_that_cannot_be_traced(made: Callable[[str], Assembly], tmp_path: Path) -> None:
    refused(
        made("branching"),
        tmp_path / "out",
        "torch cannot turn this network into an ONNX graph: Could not guard on data",
    )


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages(assembly: Assembly, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refused(assembly, tmp_path / "out", package, "pip install 'autoprune[onnx]'")
