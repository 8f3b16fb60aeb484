"""An export that saves nothing says so: padded to the widest layer, or of a policy that leaves everything."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune import exporting
from autoprune.assembly import Assembly
from autoprune.exporting import export_policy
from autoprune.provenance import make_policy
from tests.conftest import Answer

Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def assembly(finished_run: Path) -> Assembly:
    return exporting.reopen(finished_run)[0]


def test_an_export_that_saves_nothing_says_so(assembly: Assembly, tmp_path: Path) -> None:
    space = assembly.space
    last = {unit.kind: u for u, unit in enumerate(space.units)}.values()
    uneven = tuple(0 if u in last else int(n) - 1 for u, n in enumerate(space.sparsest))
    policy = make_policy(assembly, uneven, {})
    native = exporting.export_bytes(assembly, policy, export_policy(assembly, policy, tmp_path / "hf", "hf"))
    assert native[0] == pytest.approx(native[2], rel=0.1)  # a header besides
    assert native[0] < 0.8 * native[1]
    with pytest.warns(
        UserWarning, match=r"saves nothing \(0.6 MB .* 0.6 MB\): layers are padded .* Without .* 0.\d MB"
    ):
        export_policy(assembly, policy, tmp_path / "uniform", "hf", uniform=True)
    with pytest.warns(UserWarning, match="saves nothing .* the policy leaves nearly everything"):
        export_policy(assembly, make_policy(assembly, space.dense, {}), tmp_path / "dense", "hf")
    even = make_policy(assembly, tuple(1 for _ in space.units), {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_policy(assembly, even, tmp_path / "even", "hf", uniform=True)
        export_policy(assembly, policy, tmp_path / "policy.json", "policy")


def test_sizes_are_told(cli: Cli, finished_run: Path) -> None:
    told = json.loads(cli("export", finished_run, "out", "--json").out)
    assert told["bytes"] == Path("out/model.safetensors").stat().st_size < told["dense_bytes"]
    assert "MB of weights, the dense network 0.6 MB)" in cli("export", finished_run, "again").out
