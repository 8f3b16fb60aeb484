"""What people read has one word for one thing, and nothing of other libraries between."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging

from autoprune import live
from autoprune.cost_lines import budgets_asked, budgets_in, cost_lines
from autoprune.evaluation_text import lines_of
from autoprune.networks import pretrained
from autoprune.networks.quiet import without_bars
from autoprune.policy import Cost, Policy
from tests.conftest import Answer

Cli = Callable[..., Answer]
hub: Any = __import__("huggingface_hub.utils", fromlist=["utils"])


@pytest.fixture
def with_bars(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user who wants bars, and whose environment says nothing about them."""
    wanted = logging.is_progress_bar_enabled()
    for module in ("huggingface_hub.constants", "huggingface_hub.utils.tqdm"):
        monkeypatch.setattr(sys.modules[module], "HF_HUB_DISABLE_PROGRESS_BARS", None)
    logging.enable_progress_bar()
    yield
    if not wanted:
        logging.disable_progress_bar()


def test_an_environment_that_fixes_the_bars_is_no_warning(monkeypatch: pytest.MonkeyPatch, with_bars: None) -> None:
    for module in ("huggingface_hub.constants", "huggingface_hub.utils.tqdm"):
        monkeypatch.setattr(sys.modules[module], "HF_HUB_DISABLE_PROGRESS_BARS", True)
    with without_bars():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled()


@pytest.mark.usefixtures("with_bars")
def test_loading_shows_no_bar(tiny_model: str, capfd: pytest.CaptureFixture[str]) -> None:
    pretrained.load("AutoModelForCausalLM", tiny_model)
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()


@pytest.mark.usefixtures("with_bars")
def test_the_settings_of_bars_are_restored() -> None:
    hub.disable_progress_bars()
    with without_bars():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled()
    assert hub.are_progress_bars_disabled(), "each library keeps its own setting"
    hub.enable_progress_bars()
    with without_bars(), without_bars():
        assert hub.are_progress_bars_disabled()
    assert not hub.are_progress_bars_disabled()


def test_live_parts_are_told_apart_only_where_it_is_needed() -> None:
    names = ["live:HillClimb_8ca6270c", "live:Other_801eb08b", "live:Other_12345678", "evolution"]
    assert list(live.told_apart(names).values()) == ["HillClimb", "Other_801eb08b", "Other_12345678", "evolution"]


def test_a_live_metric_has_one_name() -> None:
    costs = {"live:neurons_801eb08b": Cost(dense=8.0, policy=4.0, budget=5.0)}
    (line,), (budget,) = cost_lines(costs), budgets_in(costs)
    assert line.name == budget.column == "neurons"
    assert budget.told.startswith("neurons at most 5, ")
    assert budgets_asked({"live:neurons_801eb08b": 0.5}, "prunable").startswith("neurons at most 50")


def test_show_says_what_was_spent(cli: Cli, finished_run: Path) -> None:
    told = cli("show", finished_run).out
    spent = Policy.load(finished_run / "policy.json").provenance["spent"]
    assert f"{spent['evals']:,} evaluations, {spent['tokens']:,} tokens, " in told
    assert "evals" not in told
    assert re.search(r"^ ?metric +dense +best +kept +at most", told, re.MULTILINE)


@pytest.mark.parametrize("width", [60, 100])
def test_the_list_wraps_with_an_indent(cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = cli("list", "agents").out.splitlines()
    assert max(map(len, lines)) <= width
    start = re.match(r"  \S+ +", next(line for line in lines if line.startswith("  evolution ")))
    assert start is not None
    assert all(line[: start.end()].isspace() for line in lines[1:] if line.startswith("   "))
    assert any(line.startswith("   ") for line in lines)


def test_what_was_measured_has_words_and_units(cli: Cli, finished_run: Path) -> None:
    report = json.loads(cli("evaluate", finished_run, "--json").out)
    lines = lines_of(report)
    told = dict(re.split(r"  +", line, maxsplit=1) for line in lines)
    assert list(told) == [
        "path", "cross-entropy", "perplexity", "parameters", "MACs/token", "measured on", "tokens/s", "tokens/s, dense",
    ]  # fmt: skip
    assert told["measured on"] == f"{report['tokens']:,} tokens"
    assert f" ± {report['speed_spread']:.0%} " in told["tokens/s"]
    assert "_" not in "".join(lines[1:])


@pytest.mark.filterwarnings("default::autoprune.errors.Notice")
def test_a_guessed_column_is_a_notice_everywhere(cli: Cli, finished_run: Path, tmp_path: Path) -> None:
    words = " ".join(["the", "small", "network", "keeps", "a", "head"] * 60)
    rows = [{"title": "a layer", "body": words, "other": words} for _ in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    answer = cli("evaluate", finished_run, "--data", tmp_path / "rows.jsonl")
    assert answer.status == 0, answer.err
    assert f"autoprune: '{tmp_path / 'rows.jsonl'}' is read as" in answer.err
    assert "warning" not in answer.err


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (("--budget", "50", "%"), "write a share as one word, as --budget 50%."),
        (("--budget", "params=0"), "error: the budget params=0 must be a number above 0"),
    ],
)
def test_budgets_that_are_mistaken(refused: Callable[..., str], arguments: tuple[str, ...], seen: str) -> None:
    assert "got {" not in refused("search", *arguments, seen=(seen,))
