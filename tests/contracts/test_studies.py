"""For every registered agent: the best of the stored study, and of optuna-dashboard, is the best of the run.

So it is after a search, after one that was stopped, and after one that went on with higher limits. The latter ends, to
the bit, as a search that had these limits from its beginning, and scores nothing again that is in the journal.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from autoprune import registry, stopping, study
from autoprune.assembly import Assembly, assemble
from autoprune.callbacks import SILENT, Callback, Callbacks
from autoprune.config import load_config
from autoprune.records.storage import open_storage
from tests.contracts.test_ends import QUICK
from tests.killed_searches import Counted
from tests.test_resume import outcome

pytestmark = pytest.mark.slow

FEW, MORE = 40, 56
AGENTS = registry.names("agents")


@pytest.fixture(scope="module")
def assembly(quick: dict[str, Any]) -> Assembly:
    return assemble(load_config(None, quick), masks=True)


def search(assembly: Assembly, agent: str, out: Path, evals: int, callbacks: Callback = SILENT) -> int:
    """Begin a search or go on with it; the number of calls of its scorer."""
    if agent == "maskable-ppo":
        pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    changes = {"agent": agent, "agent_options": QUICK.get(agent, {}), "max_evals": evals, "seed": 3}
    scorer = Counted(study.scorer_of(assembly, None))
    config = assembly.config.model_copy(update=changes)
    study.search_on(assembly, scorer, config, out, callbacks)
    return scorer.calls


def units_of(run: Path) -> dict[str, int]:
    """The parameters of the run's best policy, as its study names them."""
    units = json.loads((run / "policy.json").read_text())["units"]
    masks = any(unit["level"] is None for unit in units)
    kept = {f"{unit['name']}.kept": unit["kept"] for unit in units}
    return kept if masks else {unit["name"]: unit["level"] for unit in units}


def dashboard_of(run: Path, storage: str | None = None) -> dict[str, Any]:
    """What optuna-dashboard answers for the study of a run."""
    pytest.importorskip("optuna_dashboard")
    from optuna_dashboard import wsgi

    application = wsgi(open_storage(run, storage))

    def get(path: str, query: str = "") -> Any:
        environ: dict[str, Any]
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query, "SERVER_NAME": "localhost"}
        environ |= {"SERVER_PORT": "80", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO()}
        environ |= {"wsgi.url_scheme": "http"}
        return json.loads(b"".join(application(environ, lambda *_: None)))

    (listed,) = get("/api/studies")["study_summaries"]
    return dict(get(f"/api/studies/{listed['study_id']}", "after=0"))


def check_agrees(run: Path, pareto: bool) -> None:
    """The study says what the run says."""
    (name,) = optuna.get_all_study_names(open_storage(run, None))
    kept = optuna.load_study(study_name=name, storage=open_storage(run, None))
    losses = json.loads((run / "policy.json").read_text())["losses"]
    shown = dashboard_of(run)["best_trials"]
    if pareto:
        best = min(kept.best_trials, key=lambda trial: trial.values[0])
        front = [json.loads(path.read_text()) for path in (run / "front").glob("*.json")]
        found = {tuple(trial.params.values()) for trial in kept.best_trials}
        assert found >= {tuple(unit["level"] for unit in policy["units"]) for policy in front}
        assert {trial["number"] for trial in shown} == {trial.number for trial in kept.best_trials}
    else:
        best = kept.best_trial
        assert kept.best_value == losses["search"]
        (only,) = shown
        assert (only["number"], only["values"]) == (best.number, [losses["search"]]), only
        assert best.intermediate_values[losses["search_tokens"]] == losses["search"]
    assert best.values[0] == losses["search"]
    assert best.params == units_of(run)
    assert best.user_attrs["tokens"] == losses["search_tokens"]
    for trial in kept.trials:
        if trial.state == TrialState.COMPLETE:
            assert trial.user_attrs["final"]
            assert pareto or trial.user_attrs["tokens"] >= losses["search_tokens"]
        else:
            assert trial.values is None


@pytest.mark.parametrize("agent", AGENTS)
def test_the_study_agrees_and_other_limits_are_as_if_from_the_beginning(
    agent: str, assembly: Assembly, tmp_path: Path
) -> None:
    pareto = registry.load("agents", agent).pareto
    run, whole = tmp_path / "run", tmp_path / "whole"
    few = search(assembly, agent, run, FEW)
    check_agrees(run, pareto)
    more = search(assembly, agent, run, MORE)
    check_agrees(run, pareto)
    total = search(assembly, agent, whole, MORE)
    assert outcome(run) == outcome(whole)
    check_agrees(whole, pareto)
    assert few == 0 or more < total, "scores of the journal are free"


@pytest.mark.parametrize("agent", AGENTS)
def test_a_stopped_search_agrees_before_and_after_it_goes_on(agent: str, assembly: Assembly, tmp_path: Path) -> None:
    pareto = registry.load("agents", agent).pareto
    run = tmp_path / "run"
    seen: Iterator[int] = iter(range(1000))

    def stop(_: object) -> None:
        if next(seen) == 5:
            stopping.ask(run)

    search(assembly, agent, run, FEW, Callbacks(stop))
    stopped = json.loads((run / "result.json").read_text())["interrupted"]
    assert stopped == (next(seen) > 5)
    assert not stopping.is_asked(run)
    check_agrees(run, pareto)
    search(assembly, agent, run, FEW)
    assert json.loads((run / "result.json").read_text())["interrupted"] is False
    check_agrees(run, pareto)
