"""What a command tells on stderr while it is at work: every long stage, not too often, and only what is true."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoprune.progress as progress_module
from autoprune.journal import Journal
from autoprune.objective import Answer, Limits, Objective, Spent
from autoprune.progress import FIRST_GAP, LAST_GAP, Display
from autoprune.task_choice import built_in
from autoprune.testing.toys import ToyScorer, toy_space
from tests.conftest import Answer as Said

Cli = Callable[..., Said]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


class Searching:
    """An objective at work, as far as a display looks at it."""

    def __init__(self, task: Any = "text") -> None:
        self.limits, self.space, self.computed = Limits(evals=100), toy_space(), 0
        self.space.words = built_in()[task]
        self.spent, self.progress, self.answer = Spent(), 0.0, (1.25, 512)
        self.incumbents: list[Answer] = [Answer(0, 0.0, self.space.dense)]

    def loss(self, _: object) -> tuple[float, int]:
        return self.answer

    def went_on(self, evals: int, tokens: int, computed: int, seconds: float) -> Any:
        self.spent, self.progress, self.computed = Spent(evals, tokens, seconds), evals / 100, computed
        return self


def test_live_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with Display() as shown:
        shown.on_stage("collecting moments", 0.5)
        shown.on_scores(Searching().went_on(30, 900, 900, 3.0))
    err = capsys.readouterr().err
    assert "searching" in err
    assert "best loss 1.2500 on 512 tokens, 30 evaluations" in err
    assert "7 s left" in err


@pytest.mark.parametrize(("task", "word", "other"), [("images", "images", "tokens"), ("text", "tokens", "images")])
def test_progress_counts_what_is_read(
    clock: Clock, task: Any, word: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = Searching(task)
    with Display() as shown:
        shown.on_scores(objective.went_on(30, 900, 900, 3.0))
        clock.now += 2
        shown.on_scores(objective.went_on(60, 1900, 1900, 6.0))
        shown.on_search_end(1, 2, {"agent": "a", "seed": 0, "loss": 1.0, "tokens": 1900, "seconds": 6.0, "items": word})
    err = capsys.readouterr().err
    assert f"500 {word}/s" in err
    assert f"1,900 {word}, 6 s" in err
    assert other not in err


def test_a_stage_whose_share_is_not_known_yet_says_how_long_it_takes(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Display() as shown:
        for share in (0.0, 0.0, 0.5):
            shown.on_stage("validating", share)
            clock.now += FIRST_GAP
    assert capsys.readouterr().err.splitlines() == [
        "validating", "validating, 10 s so far", "validating: 50%, 20 s left",
    ]  # fmt: skip


def test_replayed_scores_are_no_speed(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    objective = Searching()
    with Display() as shown:
        for evals in range(0, 60, 10):
            clock.now += 0.001
            shown.on_scores(objective.went_on(evals, evals * 10_000, 0, evals))
        clock.now += 4
        shown.on_scores(objective.went_on(70, 602_000, 2000, 64.0))
    *replayed, last = capsys.readouterr().err.splitlines()
    assert all("tokens/s" not in line for line in replayed)
    assert "known from before" in replayed[-1]
    assert all(" left" not in line for line in replayed)
    assert " left" in last
    assert "500 tokens/s" in last


def test_a_resumed_search_counts_only_what_it_computes() -> None:
    space, journal = toy_space(), Journal.in_memory()
    rng = np.random.default_rng(0)
    policies = [space.sample(rng) for _ in range(6)]
    first = Objective(space, ToyScorer(space), Limits(), journal)
    first(policies[:4], 2 * ToyScorer.tokens_per_sequence)
    assert first.computed == first.spent.tokens
    again = Objective(space, ToyScorer(space), Limits())
    again._losses._replay = _replay_of(policies[:4], first)
    again(policies[:4], 2 * ToyScorer.tokens_per_sequence)
    assert (again.computed, again.spent.tokens) == (0, first.spent.tokens)
    again(policies[4:], 2 * ToyScorer.tokens_per_sequence)
    assert again.computed == again.spent.tokens - first.spent.tokens


def _replay_of(policies: list[Any], objective: Objective) -> Any:
    from autoprune.journal import Replay, Score

    losses = objective.by_sequence(policies, [0, 1])
    return Replay([Score(p, (0, 1), row.tolist(), 1.0) for p, row in zip(policies, losses, strict=True)])


def test_a_best_loss_that_rises_says_why(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    objective = Searching()
    with Display() as shown:
        for evals, answer in ((10, (0.8, 4096)), (25, (0.9, 8192)), (40, (0.7, 8192))):
            objective.answer = answer
            shown.on_scores(objective.went_on(evals, evals * 100, evals * 100, evals))
    first, second, third = capsys.readouterr().err.splitlines()
    assert "best loss 0.8000 on 4,096 tokens, " in first
    assert "best loss 0.9000 on 8,192 tokens (before 0.8000 on 4,096), " in second
    assert "best loss 0.7000 on 8,192 tokens, " in third


def test_a_long_stage_is_told_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Every second of an hour something is done; a line comes after ten seconds, then more and more rarely."""
    with Display() as shown:
        for second in range(3600):
            shown.on_stage("collecting moments", second / 3600)
            clock.now += 1
        shown.on_stage("building levels", 0.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "collecting moments"
    assert lines[1] == "collecting moments: 0%, 59 min 50 s left"
    assert lines[-1] == "building levels"
    assert 12 < len(lines) < 30
    assert FIRST_GAP < LAST_GAP


def test_a_search_without_a_known_end_is_told_too(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    objective = Searching()
    objective.limits = Limits()
    with Display() as shown:
        for second in range(600):
            searching = objective.went_on(second, second * 100, second * 100, second)
            searching.progress = 0.0
            shown.on_scores(searching)
            clock.now += 1
    assert 5 < len(capsys.readouterr().err.splitlines()) < 20


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line whenever there is news."""
    monkeypatch.setattr(progress_module, "FIRST_GAP", 0.0)
    monkeypatch.setattr(progress_module, "LAST_GAP", 0.0)


@pytest.mark.usefixtures("eager")
def test_every_stage_tells_how_far_it_is(cli: Cli, quick_arguments: list[str]) -> None:
    """With --json too: on stderr."""
    answer = cli("search", *quick_arguments, "data_seed=7", "--out", "run", "--json")
    told = answer.err.splitlines()
    for stage in ("building levels", "searching", "validating", "timing"):
        assert any(line.startswith(f"{stage}: ") and "%" in line for line in told), (stage, told)
    recovered = cli("finetune", "run", "--epochs", "1", "--json").err.splitlines()
    stages = [f"validating ({one})" for one in ("dense", "found", "refitted", "trained")]
    for stage in ("refitting", "fine-tuning", *stages):
        assert any(line.startswith(f"{stage}: ") and "%" in line for line in recovered), (stage, recovered)
    evaluated = cli("evaluate", "run", "--json").err.splitlines()
    assert any(line.startswith("validating: ") for line in evaluated)


@pytest.mark.slow
def test_progress_is_flushed_as_it_happens(quick_arguments: list[str], tmp_path: Path) -> None:
    """A log file that is read while the command is at work has its lines."""
    arguments = [
        sys.executable,
        "-m",
        "autoprune",
        "search",
        *quick_arguments,
        "--json",
        "--out",
        str(tmp_path / "run"),
    ]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"autoprune: the run is '{tmp_path / 'run'}'\n"
        assert process.stderr.readline() == "loading the model\n"
        assert process.poll() is None
        process.stderr.read()
    assert process.returncode == 0
