"""`resume` with other limits, and the file that stops a search in order."""

import itertools
import json
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

import autoprune
from autoprune import limits_of_runs, rundir, stopping
from autoprune.comparing.results import CURVE, is_finished
from autoprune.config import load_config
from autoprune.errors import LimitReached, UserError
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.spending import Account
from autoprune.testing.toys import ToyScorer, toy_space
from tests.conftest import Answer
from tests.contracts.test_ends import clock
from tests.test_resume import outcome

Refused = Callable[..., str]
Cli = Callable[..., Answer]

__all__ = ["clock"]


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_the_command_gives_a_run_other_limits(cli: Cli, quick: dict[str, Any], run: Path, tmp_path: Path) -> None:
    before = (run / "journal.jsonl").read_text()
    answer = cli("resume", run, "--max-evals", 60, "--json")
    assert answer.status == 0, answer.err
    assert json.loads(answer.out)["spent"]["evals"] == 60
    assert yaml.safe_load((run / "config.yaml").read_text())["max_evals"] == 60, "the run keeps it"
    own: dict[str, Any] = {"agent_options": {"slope_sequences": 0}, "out": tmp_path / "whole"}
    autoprune.search(**quick | {"max_evals": 60}, **own)
    assert outcome(run) == outcome(tmp_path / "whole")
    after = (run / "journal.jsonl").read_text()
    assert after.startswith(before)
    again = outcome(run)
    autoprune.resume(run, max_evals=60)
    assert outcome(run) == again
    assert (run / "journal.jsonl").read_text() == after, "every score is free"


@pytest.mark.parametrize(
    ("option", "value", "seen"),
    [
        ("--max-evals", "39", ("has spent 40 evaluations", "max_evals=39 is lower", "a higher limit", "a new search")),
        ("--max-tokens", "10", ("tokens", "max_tokens=10 is lower")),
        ("--max-time", "0.0001", ("seconds", "max_time=0.0001 is lower")),
        ("--max-evals", "0", ("max_evals", "greater than 0")),
    ],
)
def test_a_limit_below_what_was_spent_is_refused(
    refused: Refused, run: Path, option: str, value: str, seen: tuple[str, ...]
) -> None:
    before = (run / "config.yaml").read_bytes()
    refused("resume", run, option, value, seen=seen)
    assert (run / "config.yaml").read_bytes() == before


def test_what_a_killed_run_had_spent_is_in_its_journal(refused: Refused, run: Path) -> None:
    (run / "result.json").unlink()
    assert limits_of_runs.spent(run)["evals"] == 40
    refused("resume", run, "--max-evals", "39", seen=("has spent 40 evaluations",))
    journal = run / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:11]) + lines[11][:20])
    assert limits_of_runs.spent(run)["evals"] == 10
    journal.write_text("no journal\n[1\n")
    assert limits_of_runs.spent(run) == {}


def test_python_takes_limits_and_names_what_it_takes(run: Path) -> None:
    with pytest.raises(UserError, match=r"resume takes .*max_evals.*: 'seed' stays as the run has it"):
        autoprune.resume(run, seed=1)
    assert autoprune.resume(run, max_evals=44).spent.evals == 44


@pytest.mark.slow
def test_a_comparison_takes_other_limits(cli: Cli, refused: Refused, quick: dict[str, Any], tmp_path: Path) -> None:
    settings = quick | {"max_evals": 12}
    autoprune.compare(["random", "greedy"], seeds=1, out=tmp_path / "cmp", **settings)
    refused("resume", tmp_path / "cmp", "--max-evals", "3", seen=("-s0", "max_evals=3 is lower"))
    answer = cli("resume", tmp_path / "cmp", "--max-evals", "20", "--json")
    assert answer.status == 0, answer.err
    autoprune.compare(["random", "greedy"], seeds=1, out=tmp_path / "whole", **settings | {"max_evals": 20})
    for name in ("random-s0", "greedy-s0"):
        assert outcome(tmp_path / "cmp" / name) == outcome(tmp_path / "whole" / name)
    rows = [json.loads((tmp_path / name / "league.json").read_text())["table"] for name in ("cmp", "whole")]
    assert [(row["agent"], row["loss"], row["evals"]) for row in rows[0]] == [
        (row["agent"], row["loss"], row["evals"]) for row in rows[1]
    ]


# -- time --------------------------------------------------------------------------------------------------------------


def test_the_clock_never_runs_backwards() -> None:
    """A search with other limits may meet an early score after a late one."""
    account = Account(Limits(seconds=10.0))
    account.goes_on(5.0)
    account.goes_on(2.0)
    assert account.spent.seconds == 5.0
    assert account.clock() >= 5.0


@pytest.mark.usefixtures("clock")
def test_scores_that_a_search_does_not_meet_again_do_not_stop_the_clock(tmp_path: Path) -> None:
    """The journal of a search that took another path is never read to its end."""
    space = toy_space()
    with closing(Journal(tmp_path / "journal")) as journal:
        Objective(space, ToyScorer(space), Limits(), journal)([space.uniform()], tokens=32)
    with closing(Journal(tmp_path / "journal")) as journal:
        objective = Objective(space, ToyScorer(space), Limits(seconds=2.0), journal)
        objective([space.sparsest], tokens=64)
        looks = iter(objective.look_at_clock, "never")
        with pytest.raises(LimitReached):
            list(itertools.islice(looks, 1000))


# -- the file that stops -----------------------------------------------------------------------------------------------


class StopAt(autoprune.Callback):
    """Asks a search to stop, as another process does, at its n-th batch."""

    def __init__(self, run: Path, batch: int) -> None:
        self.run, self.left = run, batch

    def on_scores(self, objective: Objective) -> None:
        self.left -= 1
        if not self.left:
            stopping.ask(self.run)


def test_a_file_stops_a_search_in_order(quick: dict[str, Any], tmp_path: Path) -> None:
    own: dict[str, Any] = {"agent_options": {"slope_sequences": 0}, "out": tmp_path / "run"}
    stopped = autoprune.search(**quick, **own, callbacks=[StopAt(tmp_path / "run", 3)])
    assert stopped.interrupted
    assert stopped.spent.evals < 40
    assert not stopping.is_asked(tmp_path / "run")
    assert not autoprune.resume(tmp_path / "run").interrupted


def test_a_request_of_earlier_is_not_obeyed(run: Path) -> None:
    stopping.ask(run)
    assert not autoprune.resume(run, max_evals=41).interrupted


def test_a_search_that_prepares_is_stopped(
    cli: Cli, quick_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoprune import study
    from autoprune.assembly import assemble

    def asked(*args: Any) -> Any:
        stopping.ask(Path("run"))
        return assemble(*args)

    with monkeypatch.context() as patch:
        patch.setattr(study, "assemble", asked)
        answer = cli("search", *quick_arguments, "--out", "run")
    assert answer.status == 130
    assert "autoprune resume run" in answer.err
    assert cli("resume", "run").status == 0


@pytest.mark.slow
def test_a_file_stops_a_comparison(quick: dict[str, Any], tmp_path: Path) -> None:
    path, settings = tmp_path / "cmp", quick | {"max_evals": 60}
    agents: dict[str, Any] = {"agents": ["random", "greedy"], "seeds": 1, "out": path}
    assert autoprune.compare(**agents, **settings, callbacks=[StopAt(path, 1)]).interrupted
    assert not (path / "greedy-s0").exists()
    assert not stopping.is_asked(path)
    assert len(autoprune.compare(**agents, **settings).league["searches"]) == 2


def test_asking_whether_a_run_is_in_use_holds_nobody_up(run: Path) -> None:
    assert not rundir.is_in_use(run)
    assert not rundir.is_in_use(run / "nowhere")
    with rundir.locked(run):
        assert rundir.is_in_use(run)
        with pytest.raises(UserError, match="in use by another process"), rundir.locked(run):
            pass
    with suppress(FileNotFoundError):
        (run / ".lock").unlink()
    assert not rundir.is_in_use(run)


def test_a_search_of_a_comparison_that_got_other_limits_and_was_killed_goes_on(run: Path) -> None:
    (run / CURVE).write_text("[]")
    config = load_config(run / "config.yaml")
    limits_of_runs.save(run, config.model_copy(update={"workers": 2}))
    assert is_finished(run), "where it is scored changes nothing"
    limits_of_runs.save(run, config.model_copy(update={"max_evals": 60}))
    assert not is_finished(run)
    assert autoprune.load(run).interrupted
    assert autoprune.resume(run).spent.evals == 60
    assert is_finished(run)
