"""Parameters and multiply-accumulates that are shown are both of the whole network, everywhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autoprune
from autoprune.assembly import assemble
from autoprune.config import load_config
from autoprune.evaluation.timing import speeds
from autoprune.validation import total_macs, total_params
from tests.conftest import Answer

Cli = Callable[..., Answer]
HEAD = 257 * 64
"""Of the tiny model: its vocabulary times its width."""


@pytest.mark.parametrize("context", [32, 4096])
def test_a_language_model_is_its_units_and_its_head(quick: dict[str, Any], context: int) -> None:
    assembly = assemble(load_config(None, quick | {"workload.context": context}))
    space = assembly.space
    for policy in (space.dense, space.uniform(), space.sparsest):
        assert total_macs(assembly, policy) == pytest.approx(HEAD + space.cost(policy, "macs"), rel=1e-12)


def test_a_classifier_is_everything_that_is_multiplied() -> None:
    import torch
    from torch import nn

    assembly = assemble(load_config(None, {"model": "tiny-cnn", "reconstruction_sequences": 2}))
    counted: list[int] = []

    def count(module: nn.Module, _: Any, out: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        counted.append(out[0].numel() * module.weight[0].numel())

    hooks = [m.register_forward_hook(count) for m in assembly.loaded.model.modules() if hasattr(m, "weight")
             and isinstance(m, nn.Conv2d | nn.Linear)]  # fmt: skip
    assembly.view(assembly.splits.search[:1, :1])
    for hook in hooks:
        hook.remove()
    dense, uniform = assembly.space.dense, assembly.space.uniform()
    assert total_macs(assembly, dense) == sum(counted) > assembly.space.cost(dense, "macs")
    saved = assembly.space.cost(dense, "macs") - assembly.space.cost(uniform, "macs")
    assert total_macs(assembly, dense) - total_macs(assembly, uniform) == saved


def test_every_place_shows_the_whole_network(cli: Cli, finished_run: Path, text_file: str) -> None:
    table = {row["name"]: row for row in json.loads((finished_run / "result.json").read_text())["table"]}
    costs = json.loads(cli("show", finished_run, "--json").out)["costs"]
    for metric in ("params", "macs"):
        assert costs[metric]["network"] == {"dense": table["dense"][metric], "policy": table["best"][metric]}
        assert costs[metric]["dense"] < table["dense"][metric]
        saved = costs[metric]["dense"] - costs[metric]["policy"]
        assert table["dense"][metric] - table["best"][metric] == pytest.approx(saved, rel=0.01)  # and norms
    evaluated = json.loads(cli("evaluate", finished_run, "--json").out)
    assert (evaluated["params"], evaluated["macs_per_token"]) == (table["best"]["params"], table["best"]["macs"])
    cli("export", finished_run, "out")
    own = json.loads(cli("evaluate", "out", "--data", text_file, "--sequence-length", "32", "--json").out)
    assert (own["params"], own["macs_per_token"]) == (table["best"]["params"], pytest.approx(table["best"]["macs"]))
    shown = cli("show", finished_run).out
    assert "params, whole network" in shown
    assert "macs, what can be pruned" in shown
    cli("report", finished_run, "--out", "r.html")
    assert "of the whole network; a budget bounds what of it can be pruned" in Path("r.html").read_text()


def test_a_comparison_has_the_whole_network(quick: dict[str, Any], tmp_path: Path) -> None:
    results = autoprune.compare("uniform", 1, out=tmp_path / "cmp", **quick).league
    assembly = assemble(load_config(None, quick))
    for name, policy in (("dense", assembly.space.dense), ("uniform", assembly.space.uniform())):
        one = results["references"][name]
        assert (one["params"], one["macs"]) == (total_params(assembly, policy), total_macs(assembly, policy))


def test_speeds_are_medians_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down for some rounds slows all networks down, and moves no median by much."""
    import torch

    from autoprune.evaluation import timing

    clock, passes, standing = [0.0], [0], [0]

    def run(_: torch.Tensor) -> None:
        slow = 100 if passes[0] // 2 in (2, 5) else 1  # two rounds of eight
        clock[0] += slow * (1.0, 2.0)[standing[0]] + 0.01 * (passes[0] // 2)
        passes[0] += 1

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    places = [lambda network=network: standing.__setitem__(0, network) for network in (0, 1)]
    first, second = speeds(places, run, torch.zeros(1, 10))
    assert first.per_second == pytest.approx(10, rel=0.06)
    assert second.per_second == pytest.approx(5, rel=0.04)
    assert first.spread > 0
