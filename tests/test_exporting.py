"""Exporters of one's own: options by name, refusals before the network is loaded, functions as in earlier versions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune import exporting, registry
from autoprune.errors import UserError
from autoprune.policy import Policy
from autoprune.ports.exporter import load_exporter
from tests.conftest import Answer

Cli = Callable[..., Answer]
Refused = Callable[..., str]

EXAMPLE = f"{Path(__file__).parent.parent}/examples/08_own_exporter.py:NumpyArrays"
OWN = """
from dataclasses import dataclass
from autoprune.ports import Exporter

@dataclass
class Sizes(Exporter):
    scale: int
    stage = "counting"

    def refuses(self, config):
        return "one seed is too few." if config.seed == 7 else None

    def write(self, source, path):
        with source.pruned() as network:
            count = sum(p.numel() for p in network.parameters())
        path.write_text(str(self.scale * count))

class Notes(Exporter):
    needs_network = False

    def write(self, source, path):
        path.write_text(source.policy.provenance["agent"])

class Broken(Exporter):
    def write(self, source, path):
        raise KeyError("what")

class Unwritten(Exporter):
    pass

def names(assembly, policy, path, prefix: str = "", *, upper: bool = False):
    '''A function, as exporters were.'''
    text = prefix + " ".join(unit.name for unit in policy.units)
    path.write_text(text.upper() if upper else text)

class Nothing:
    pass

class Duck:
    needs_network = False

    def write(self, source, path):
        path.write_text("quack")
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test in which no network is loaded."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was loaded")

    monkeypatch.setattr(exporting, "assemble", never)


def test_the_example(cli: Cli, finished_run: Path) -> None:
    answer = cli("export", finished_run, "half.npz", "--to", EXAMPLE, "dtype=float16", "--json")
    assert answer.status == 0, answer
    assert json.loads(answer.out)["options"] == {"dtype": "float16"}
    assert "writing arrays" in answer.err
    policy = Policy.load(finished_run / "policy.json")
    with np.load("half.npz") as arrays:
        assert {array.dtype for array in arrays.values()} == {np.dtype("float16")}
        counted = sum(array.size for array in arrays.values())
    assert policy.costs["params"].network is not None
    assert counted >= policy.costs["params"].network.policy


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (
            ["out.npz", "--to", EXAMPLE, "dtpye=float16"],
            ("no option 'dtpye'", "Did you mean 'dtype'?", "It has: dtype."),
        ),
        (["out.npz", "--to", EXAMPLE, "dtype=int8"], ("dtype of the exporter", "'float16' or 'float32'", "'int8'")),
        (["out.npy", "--to", EXAMPLE], ("out.npy", ".npz")),
        (["out", "--to", "hf", "uniform=perhaps"], ("uniform of the exporter 'hf'", "'perhaps'")),
        (["out", "--to", "module"], ("is a Hugging Face model", "--to hf")),
        (["out", "--to", "policy", "--uniform"], ("'policy'", "no option 'uniform'", "It has: none.")),
        (["out", "uniform"], ("'uniform'", "key=value")),
        ([".", "--to", "onnx"], ("own.py", "no export wrote")),
        ([".", "--to", "hf"], ("own.py", "no export wrote")),
    ],
)
def test_mistakes_are_told_before_the_network_is_loaded(
    refused: Refused, own: str, finished_run: Path, arguments: list[str], seen: tuple[str, ...]
) -> None:
    refused("export", finished_run, *arguments, seen=seen)


@pytest.mark.usefixtures("unloaded")
def test_what_needs_no_network_loads_none(cli: Cli, own: str, finished_run: Path) -> None:
    assert cli("export", finished_run, "p.json", "--to", "policy").out == "exported: p.json\n"
    assert Policy.load(Path("p.json")) == Policy.load(finished_run / "policy.json")
    assert cli("export", finished_run, "notes", "--to", f"{own}:Notes").status == 0
    assert Path("notes").read_text() == "evolution"


def test_own_classes(cli: Cli, refused: Refused, own: str, finished_run: Path, tmp_path: Path) -> None:
    answer = cli("export", finished_run, "sizes", "--to", f"{own}:Sizes", "scale=2")
    assert answer.status == 0, answer
    assert "counting" in answer.err
    assert int(Path("sizes").read_text()) % 2 == 0
    refused("export", finished_run, "x", "--to", f"{own}:Sizes", seen=("missing a required argument: 'scale'",))
    broken = ("the exporter 'write' (own.py, line", "KeyError at own.py, line", "'what'")
    refused("export", finished_run, "x", "--to", f"{own}:Broken", seen=broken)
    refused("export", finished_run, "x", "--to", f"{own}:Unwritten", seen=("Unwritten", "no method 'write'"))
    assert cli("export", finished_run, "duck", "--to", f"{own}:Duck").status == 0
    assert Path("duck").read_text() == "quack"
    refused("export", finished_run, "x", "--to", f"{own}:Nothing", seen=("own.py:Nothing", "no method 'write'"))


def test_functions_of_earlier_versions(cli: Cli, refused: Refused, own: str, finished_run: Path) -> None:
    assert cli("export", finished_run, "n", "--to", f"{own}:names", "prefix=of-", "upper=true").status == 0
    assert Path("n").read_text().startswith("OF-0.ATTENTION 0.MLP")
    seen = ("no option 'uper'", "Did you mean 'upper'?", "It has: prefix, upper.")
    refused("export", finished_run, "n", "--to", f"{own}:names", "uper=true", seen=seen)
    refused("export", finished_run, "n", "--to", f"{own}:names", "upper=loud", seen=("upper of the exporter",))


def test_the_form_of_a_run(cli: Cli, finished_run: Path) -> None:
    """Without --to the network is written as it was given; an exporter that is added does not change that."""
    answer = cli("export", finished_run, "out", "--json")
    assert json.loads(answer.out)["to"] == "hf"
    assert json.loads(answer.out)["uniform"] is False


@pytest.mark.parametrize("name", registry.names("exporters"))
def test_options_have_defaults_and_types(name: str) -> None:
    exporter = load_exporter(name)
    assert exporter.__doc__
    assert exporter.stage
    with pytest.raises(UserError, match="has no option 'nonsense'"):
        exporting.make_exporter(name, {"nonsense": 1})
    assert isinstance(exporting.make_exporter(name), exporter)
