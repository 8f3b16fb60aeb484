"""Callbacks: when they are called, how they stop a search, and what becomes of one that fails."""

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

import autoprune
from autoprune.callbacks import Best, Callbacks
from autoprune.errors import UserError
from autoprune.objective import Objective
from autoprune.policy import Policy


class Witness(autoprune.Callback):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.moments: list[str] = []
        self.bests: list[Best] = []
        self.given: dict[str, Any] = {}

    def _seen(self, moment: str, given: Any = None) -> None:
        if self.moments[-1:] != [moment]:
            self.moments.append(moment)
        self.given[moment] = given

    def on_start(self, config: Any, path: Path) -> None:
        self._seen("start", path)

    def on_stage(self, stage: str, share: float) -> None:
        self._seen("stage", stage)

    def on_scores(self, objective: Objective) -> None:
        self._seen("scores", objective)

    def on_best(self, answer: Best) -> None:
        self._seen("best", answer)
        self.bests.append(answer)

    def on_step(self, step: int, measures: Any) -> None:
        self._seen("step", (step, measures))

    def on_search_end(self, number: int, total: int, outcome: Any) -> None:
        self._seen("search end", (number, total, outcome["agent"]))

    def on_end(self, result: Any) -> None:
        self._seen("end", result)


class StopAfter(autoprune.Callback):
    """Ends a search when so many policies were scored, with the method or with the exception."""

    def __init__(self, evals: int, raising: bool) -> None:
        self.evals, self.raising = evals, raising

    def on_scores(self, objective: Objective) -> None:
        if objective.spent.evals >= self.evals and objective.computed:
            if self.raising:
                raise autoprune.StopSearch
            objective.stop()


def same(one: Path, other: Path) -> bool:
    """Whether two runs found the same policy."""
    return Policy.load(one / "policy.json").units == Policy.load(other / "policy.json").units


def test_a_search_tells_all_its_moments(quick: dict[str, Any], finished_run: Path, tmp_path: Path) -> None:
    witness, functions = Witness(), list[int]()
    result = autoprune.search(
        **quick, agent_options={"slope_sequences": 0}, out=tmp_path / "run",
        callbacks=[witness, lambda objective: functions.append(objective.spent.evals)],
    )  # fmt: skip
    assert witness.moments[:2] == ["start", "stage"]
    assert witness.moments[-2:] == ["stage", "end"]
    assert witness.moments[2:5] == ["scores", "best", "scores"]
    assert witness.given["start"] == witness.given["scores"].run == tmp_path / "run"
    assert witness.given["end"] is result
    assert functions[-1] == result.spent.evals
    best = witness.bests[-1]
    assert best.proposal == result.incumbents[-1].proposal
    assert best.loss == result.policy.losses["search"]
    assert best.scored == result.policy.losses["search_tokens"]
    assert [one.proposal for one in witness.bests] == [one.proposal for one in result.incumbents]
    assert same(result.path, finished_run), "callbacks change nothing"


@pytest.mark.parametrize("raising", [False, True])
def test_a_callback_stops_a_search_which_has_a_result_and_goes_on(
    raising: bool, quick: dict[str, Any], finished_run: Path, tmp_path: Path
) -> None:
    own: dict[str, Any] = {"agent_options": {"slope_sequences": 0}, "out": tmp_path / "run"}
    result = autoprune.search(**quick, **own, callbacks=StopAfter(10, raising))
    assert result.interrupted
    assert 10 <= result.spent.evals < 40
    assert json.loads((result.path / "result.json").read_text(encoding="utf-8"))["interrupted"]
    again = autoprune.resume(result.path, callbacks=[witness := Witness()])
    assert not again.interrupted
    assert witness.given["scores"].spent.evals == 40
    assert same(again.path, finished_run), "stopped and resumed equals uninterrupted"


def test_a_stop_before_the_search_waits_for_an_answer(quick: dict[str, Any], tmp_path: Path) -> None:
    class AtOnce(autoprune.Callback):
        def on_stage(self, stage: str, share: float) -> None:
            raise autoprune.StopSearch

    result = autoprune.search(**quick, out=tmp_path / "run", callbacks=[AtOnce()])
    assert result.interrupted
    assert result.loss > 0


def test_a_callback_that_fails_is_named_and_the_run_goes_on(quick: dict[str, Any], tmp_path: Path) -> None:
    class Broken(autoprune.Callback):
        def on_scores(self, objective: Objective) -> None:
            if objective.spent.evals >= 10:
                raise ZeroDivisionError("oh")

    with pytest.raises(autoprune.UserError, match=r"callback Broken, 'on_scores' .*ZeroDivisionError.*oh"):
        autoprune.search(**quick, out=tmp_path / "run", callbacks=[Broken()])
    assert not autoprune.resume(tmp_path / "run").interrupted


def test_a_callback_that_fails_on_a_notice_is_named(quick: dict[str, Any], tmp_path: Path) -> None:
    class Broken(autoprune.Callback):
        def on_notice(self, text: str) -> None:
            raise KeyError("there")

    with pytest.raises(autoprune.UserError, match=r"callback Broken, 'on_notice'"):
        autoprune.search(**quick, out=tmp_path / "run", callbacks=[Broken()])


class Misspelt(autoprune.Callback):
    def on_score(self, objective: Objective) -> None: ...


@pytest.mark.parametrize(
    ("callbacks", "seen"),
    [
        ([3], "callbacks has 3: a callback is an autoprune.Callback"),
        ([Witness], r"the class Witness: give an object of it, Witness\(\)"),
        ([Misspelt()], "'on_score'. Did you mean 'on_scores'"),
    ],
)
def test_what_is_no_callback_is_refused(callbacks: Any, seen: str, quick: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(autoprune.UserError, match=seen):
        autoprune.search(**quick, out=tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


def test_a_comparison_tells_of_every_search_stops_as_a_whole_and_goes_on(quick: dict[str, Any], tmp_path: Path) -> None:
    class StopSecond(Witness):
        def on_scores(self, objective: Objective) -> None:
            super().on_scores(objective)
            if objective.run and objective.run.name == "random-s0":
                objective.stop()

    settings = {key: value for key, value in quick.items() if key not in ("agent", "seed")} | {"out": tmp_path / "c"}
    stopped = autoprune.compare("uniform,random", 1, **settings, callbacks=[first := StopSecond()])
    assert stopped.interrupted
    assert [row["agent"] for row in stopped.table] == ["uniform"]
    assert first.given["search end"] == (1, 2, "uniform")
    whole = autoprune.compare("uniform,random", 1, **settings, callbacks=[second := Witness()])
    assert not whole.interrupted
    assert len(whole.table) == 2
    assert second.moments.count("start") == 1, "what has ended is not searched again"
    assert second.given["search end"] == (2, 2, "random")
    assert second.given["end"].path == tmp_path / "c" / "random-s0"


def test_fine_tuning_tells_its_steps_and_stops(finished_run: Path, tmp_path: Path) -> None:
    import shutil

    own = shutil.copytree(finished_run, tmp_path / "run")

    class StopAtThree(Witness):
        def on_step(self, step: int, measures: Any) -> None:
            super().on_step(step, measures)
            if step == 3:
                raise autoprune.StopSearch

    recovered = autoprune.finetune(own, 50, batch=2, callbacks=[witness := StopAtThree()])
    step, measures = witness.given["step"]
    assert (step, recovered.training and recovered.training.steps) == (3, 3)
    assert set(measures) == {"loss", "lr", "gradient_norm"}
    assert measures["loss"] > 0
    assert witness.given["end"] is recovered
    assert (recovered.path / "config.json").is_file()


def test_the_standard_log_has_stages_bests_and_notices(
    quick: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="autoprune"):
        autoprune.search(**quick, out=tmp_path / "run")
    levels = {record.levelname for record in caplog.records}
    assert levels == {"DEBUG", "INFO", "WARNING"}
    infos = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert any(message.startswith("new best: loss") for message in infos)
    assert "validating" in infos
    assert any("can be pruned" in record.getMessage() for record in caplog.records if record.levelname == "WARNING")


def test_nothing_is_printed_where_nobody_asked(
    quick: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    autoprune.search(**quick, out=tmp_path / "run")
    assert "searching" not in "".join(capfd.readouterr())
    autoprune.resume(tmp_path / "run", progress=True)
    assert "searching" in capfd.readouterr().err
    told: list[str] = []
    autoprune.resume(tmp_path / "run", progress=lambda stage, share: told.append(stage))
    assert "validating" in told
    assert "searching" not in "".join(capfd.readouterr())


def test_what_is_logged_on_a_terminal_is_printed_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune.progress import Display

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    handler = logging.StreamHandler(terminal)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    with Display() as display:
        display.on_stage("collecting moments", 0.5)
        assert handler.stream is not terminal
        logging.getLogger("autoprune").warning("a line of the log")
    assert handler.stream is terminal
    lines = [line for line in terminal.getvalue().replace("\r", "\n").splitlines() if "a line of the log" in line]
    assert len(lines) == 1
    assert "collecting" not in lines[0]


def test_in_a_notebook_progress_is_one_output_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    from autoprune.notebook_display import NotebookDisplay

    shown: list[str] = []

    class Handle:
        def update(self, content: Any) -> None:
            shown.append(content.data)

    def display(content: Any, display_id: bool) -> Handle:
        assert not shown, "the output is made once"
        assert display_id
        shown.append(content.data)
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    with NotebookDisplay() as progress:
        progress.on_stage("collecting <moments>", 0.5)
        progress.on_stage("collecting <moments>", 0.6)
        progress.on_notice("a <b>problem</b>")
    assert 'collecting &lt;moments&gt; <progress value="0.5000"' in shown[0]
    assert len(shown) == 3, "updates that follow at once are left out"
    assert "a &lt;b&gt;problem" in shown[-1]
    assert "<progress" not in shown[-1]


async def _async(objective: Objective) -> None:
    objective.stop()


class _Yields(autoprune.Callback):
    def on_scores(self, objective: Objective) -> Any:
        objective.stop()
        yield


@pytest.mark.parametrize(
    ("callback", "seen"), [(_async, "'_async'"), (_Yields(), "'on_scores' of the callback _Yields")]
)
def test_what_a_call_only_begins_is_refused(callback: Any, seen: str) -> None:
    with pytest.raises(UserError, match=f"{seen}.* is async or a generator"):
        Callbacks([callback])
