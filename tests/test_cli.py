"""The commands: what they print, what they write, and that options, files and overrides add up."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoprune import display, registry
from autoprune.cost_lines import number
from autoprune.policy import Policy, UnitPolicy, to_json
from autoprune.wording import duration
from autoprune.written import parse_budget
from tests.conftest import Answer

Cli = Callable[..., Answer]


def test_search_prints_one_table_and_the_next_command(cli: Cli, quick_arguments: list[str]) -> None:
    answer = cli("search", *quick_arguments, "--out", "run")
    assert answer.status == 0
    lines = [line.split() for line in answer.out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line and line[0] in ("dense", "uniform", "best")}
    assert list(rows) == ["dense", "uniform", "best"]
    table = json.loads(Path("run/result.json").read_text())["table"]
    assert [rows[row["name"]][0] for row in table] == [f"{abs(row['validation_loss']):.4f}" for row in table]
    assert "policy:  run/policy.json" in answer.out
    export = next(line for line in answer.out.splitlines() if line.startswith("export:"))
    assert cli(*export.split("autoprune ")[1].split()).status == 0
    assert Policy.load(Path("run/export/policy.json")) == Policy.load(Path("run/policy.json"))


def test_search_tells_its_stages_on_stderr(cli: Cli, quick_arguments: list[str]) -> None:
    answer = cli("search", *quick_arguments, "data_seed=1")
    stages = ["loading the model", "building levels", "refitting", "validating", "timing"]
    told = [line for line in answer.err.splitlines() if not line.startswith(("searching: ", "autoprune: "))]
    assert told == stages
    searching = [line for line in answer.err.splitlines() if line.startswith("searching: ")]
    assert 2 <= len(searching) <= 12
    assert "best loss" in searching[-1]
    assert "40 evaluations" in searching[-1]
    assert "tokens/s" in searching[-1]


@pytest.mark.slow
def test_json_is_all_there_is_on_stdout(quick_arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [sys.executable, "-m", "autoprune", "search", *quick_arguments, "--json", "--out", str(out)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert result["policy"] == str(out / "policy.json")
    assert result["run"] == str(out)
    assert [row["name"] for row in result["table"]] == ["dense", "uniform", "best"]
    assert result["loss"] == result["table"][-1]["validation_loss"]
    assert result["costs"]["params"]["policy"] <= result["costs"]["params"]["budget"]
    assert result["losses"] == json.loads((out / "policy.json").read_text())["losses"]
    assert result["spent"]["evals"] == 40
    assert result["interrupted"] is False
    assert not [line for line in done.stderr.splitlines() if "Warning" in line or "it/s" in line]


def test_json_turns_infinity_into_null() -> None:
    """And no reader lets one in."""
    assert to_json({"loss": float("inf"), "more": [float("nan"), 1.5]}) == '{"loss": null, "more": [null, 1.5]}'


def test_options_override_the_file_and_key_value_overrides_both(cli: Cli, quick: dict[str, Any]) -> None:
    settings = quick | {"agent": "random", "seed": 3, "max_evals": 4, "agent_options": {"tokens": 64, "batch": 2}}
    Path("c.yaml").write_text(yaml.safe_dump(settings | {"budgets": {"macs": 0.9}}))
    cli("search", "--config", "c.yaml", "--seed", "5", "--budget", "params=60k", "--budget", "macs=0.7",
        "--levels", "1,0.5,0", "--out", "run", "agent_options.batch=3", "max_evals=6")  # fmt: skip
    saved = yaml.safe_load(Path("run/config.yaml").read_text())
    expected = {"seed": 5, "budgets": {"params": 60_000.0, "macs": 0.7}, "levels": [1.0, 0.5, 0.0], "max_evals": 6}
    expected |= {"agent_options": {"tokens": 64, "batch": 3}}
    assert {key: saved[key] for key in settings | expected} == settings | expected


def test_budgets_hold_in_absolute_numbers(cli: Cli, quick_arguments: list[str]) -> None:
    result = json.loads(cli("search", *quick_arguments, "--budget", "params=60k", "--json").out)
    assert result["costs"]["params"]["budget"] == 60_000
    assert result["costs"]["params"]["policy"] <= 60_000


def test_a_new_run_gets_a_name_of_its_own(cli: Cli, quick_arguments: list[str]) -> None:
    runs = [json.loads(cli("search", *quick_arguments, "--agent", "uniform", "--json").out)["run"] for _ in range(2)]
    assert len(set(runs)) == 2
    for run in runs:
        assert Path(run).parent == Path("runs")
        assert "uniform-s0" in run


def test_depth_space_keeps_or_drops(cli: Cli, quick_arguments: list[str]) -> None:
    cli("search", *quick_arguments, "--space", "depth", "--out", "run")
    units = Policy.load(Path("run/policy.json")).units
    assert {unit.kept / unit.groups for unit in units} == {0.0, 1.0}


def test_resume_of_a_finished_run_finds_the_same(cli: Cli, quick_arguments: list[str]) -> None:
    first = json.loads(cli("search", *quick_arguments, "--out", "run", "--json").out)
    journal = Path("run/journal.jsonl").read_bytes()
    again = json.loads(cli("resume", "run", "--json").out)
    assert again["losses"] == first["losses"]
    assert again["costs"] == first["costs"]
    assert Path("run/journal.jsonl").read_bytes() == journal


def test_show_draws_every_unit(cli: Cli, finished_run: Path) -> None:
    shown = cli("show", finished_run).out
    policy = Policy.load(finished_run / "policy.json")
    for unit in policy.units:
        row = next(line for line in shown.splitlines() if line.split()[:1] == [str(unit.block)])
        assert f"{unit.kept}/{unit.groups}" in row
    for word in (
        "params",
        "macs",
        "dense",
        "uniform",
        "best",
        policy.provenance["model_hash"],
        "evolution",
        "loss (kl)",
        "perplexity",
    ):
        assert word in shown
    assert cli("show", finished_run / "policy.json").out == shown
    assert json.loads(cli("show", finished_run, "--json").out) == json.loads((finished_run / "policy.json").read_text())


def test_list_describes_every_part(cli: Cli) -> None:
    listed = json.loads(cli("list", "--json").out)
    assert {kind: list(parts) for kind, parts in listed.items()} == {k: registry.names(k) for k in registry.PARTS}
    for parts in listed.values():
        assert all(len(line) > 20 and line.endswith((".", ")", ":")) for line in parts.values()), parts
    assert " Model types: " in listed["families"]["llama"]
    assert "mistral" in listed["families"]["llama"]
    assert list(json.loads(cli("list", "agents", "--json").out)) == ["agents"]
    listed_agents = [line for line in cli("list", "agents").out.splitlines() if line.startswith("  ")]
    assert "  evolution " in "\n".join(listed_agents)
    assert len({re.match(r"  \S+ +| +", line).end() for line in listed_agents}) == 1  # type: ignore[union-attr]
    assert "none is registered" in cli("list", "callbacks").out


def test_evaluate_of_a_run_gives_the_loss_that_was_reported(cli: Cli, finished_run: Path, text_file: str) -> None:
    reported = Policy.load(finished_run / "policy.json").losses["validation"]["best"]["ce"]
    report = json.loads(cli("evaluate", finished_run, "--json").out)
    assert report["cross_entropy"] == pytest.approx(reported, abs=1e-6)
    on_text = json.loads(cli("evaluate", finished_run, "--data", text_file, "--max-sequences", "3", "--json").out)
    assert on_text["tokens"] == 3 * 32
    assert "cross-entropy" in cli("evaluate", finished_run).out


def test_evaluate_of_directories_dense_and_pruned(
    cli: Cli, finished_run: Path, tiny_model: str, text_file: str
) -> None:
    options = ("--data", text_file, "--sequence-length", "32", "--max-sequences", "8", "--json")
    cli("export", finished_run, "pruned")
    dense, pruned = (json.loads(cli("evaluate", path, *options).out) for path in (tiny_model, "pruned"))
    policy = json.loads(cli("evaluate", finished_run, *options[:2], *options[4:]).out)
    assert pruned["params"] == policy["params"] < dense["params"]
    assert pruned["cross_entropy"] == pytest.approx(policy["cross_entropy"], abs=1e-4)
    assert abs(pruned["cross_entropy"] - dense["cross_entropy"]) > 1e-3


def test_bars_and_numbers() -> None:
    unit = UnitPolicy(name="0.mlp", kind="mlp", block=0, groups=96, level=1, kept=24, density=0.25, kept_groups="0-23")
    assert display.bar(unit) == "████············  25%    24/96"
    assert [number(n) for n in (0.5, 999, 1200, 22.6e6, 3e9)] == ["0.5", "999", "1.2k", "22.6M", "3G"]
    assert [duration(s) for s in (9.4, 190, 7500)] == ["9 s", "3 min 10 s", "2 h 05 min"]
    assert parse_budget("params=1.2M") == ("params", 1_200_000.0)


def test_interrupted_before_the_search_can_be_resumed(
    cli: Cli, quick_arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoprune import study

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "assemble", interrupted)
        answer = cli("search", *quick_arguments, "--out", "run")
    assert answer.status == 130
    assert answer.err == "autoprune: interrupted: nothing is lost, `autoprune resume run` goes on.\n"
    with monkeypatch.context() as patch:
        patch.setattr(study, "measure", interrupted)  # the second Ctrl-C, while the result is measured
        answer = cli("resume", "run")
    assert answer.status == 130
    assert answer.err.endswith("nothing is lost, `autoprune resume run` goes on.\n")
    assert not Path("run/policy.json").exists()
    assert cli("resume", "run").status == 0
    assert Path("run/policy.json").exists()


def test_interrupted_before_the_run_began(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune import study

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "make_agent", interrupted)
    answer = cli("search", "--out", "run")
    assert answer.status == 130
    assert "had not begun" in answer.err
