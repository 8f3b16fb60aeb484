"""The Optuna study of a run: what a trial holds, that nothing is lost or written twice, storages that fail.

On toys a search is a list of scores; whole runs are those of the command line.
"""

import errno
import json
import math
import os
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from autoprune.errors import UserError
from autoprune.journal import HEADER, Journal, Score
from autoprune.mask import Mask
from autoprune.records.record import Record, finalists
from autoprune.records.storage import FILE, check_storage, open_storage
from autoprune.space import Levels, Proposal, SearchSpace
from autoprune.testing.toys import ToyScorer, toy_space
from autoprune.written import without_password
from tests.conftest import Answer

Refused = Callable[..., str]
Cli = Callable[..., Answer]
TOKENS = ToyScorer.tokens_per_sequence
SEQUENCES = ToyScorer.n_sequences
QUICK_EVALS = 40


# -- runs on toys ------------------------------------------------------------------------------------------------------


def masked_space() -> SearchSpace:
    """The toy with costs of every number of groups, which masks need."""
    space = toy_space()
    costs = {"params": [[unit.params(kept) for kept in range(unit.groups + 1)] for unit in space.units]}
    return SearchSpace(space.units, {"params": space.rows("params")}, space.budgets, costs)


def searched(space: SearchSpace, candidates: int = 12) -> list[Score]:
    """Dense as a probe, then candidates on one sequence, and every third on all."""
    rng, scorer = np.random.default_rng(0), ToyScorer(space)
    asked: list[tuple[Proposal, Sequence[int]]] = [(space.dense, (0,))]
    for i in range(candidates):
        policy = space.sample(rng)
        asked.append((policy, (0,)))
        if i % 3 == 0:
            asked.append((policy, range(1, SEQUENCES)))
    return [Score(p, tuple(seen), scorer.score([p], seen)[0].tolist(), 0.5 * i) for i, (p, seen) in enumerate(asked)]


@contextmanager
def recording(run: Path, space: SearchSpace, subject: str = "toy", **options: Any) -> Iterator[tuple[Journal, Record]]:
    """A run's journal and record; it must end without a problem."""
    run.mkdir(exist_ok=True)
    with closing(Journal(run / "journal.jsonl", subject)) as journal:
        record = Record(run, journal, space, TOKENS, **options)
        try:
            yield journal, record
        finally:
            problem = record.close()
        assert problem is None


def recorded(run: Path, space: SearchSpace, scores: Sequence[Score], **options: Any) -> list[FrozenTrial]:
    """The trials of a run, of which every score is journalled and written, in batches of four."""
    with recording(run, space, **options) as (journal, record):
        known = len(journal.scores)
        record.write()
        for start in range(known, len(scores), 4):
            journal.append(scores[start : start + 4])
            record.write()
    return trials(run, options.get("storage"), options.get("name"))


def study_of(run: Path, storage: str | None = None, name: str | None = None) -> optuna.Study:
    return optuna.load_study(study_name=name or run.name, storage=open_storage(run, storage))


def trials(run: Path, storage: str | None = None, name: str | None = None) -> list[FrozenTrial]:
    return study_of(run, storage, name).trials


def scored(found: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that are scores: not those that are added at the end."""
    return [trial for trial in found if "final" not in trial.user_attrs]


def told(trial: FrozenTrial) -> dict[str, Any]:
    """What must not depend on interruptions: all but times, and the run's own name."""
    attributes = {key: value for key, value in trial.user_attrs.items() if key not in ("run", "seconds")}
    return {
        "number": trial.number, "state": trial.state, "values": trial.values, "params": trial.params,
        "distributions": trial.distributions, "attributes": attributes, "constraints": trial.constraints,
        "steps": trial.intermediate_values,
    }  # fmt: skip


# -- what a trial holds ------------------------------------------------------------------------------------------------


def test_a_trial_of_levels(tmp_path: Path) -> None:
    space = toy_space()
    policy = space.uniform()
    scores = [Score(policy, (0, 1), [1.0, 2.0], 0.25), Score(policy, (2, 3), [3.0, 6.0], 0.5)]
    first, second = recorded(tmp_path / "run", space, scores, agent="evolution")
    assert first.params == {unit.name: level for unit, level in zip(space.units, policy, strict=True)}
    assert (first.state, first.values, second.values) == (TrialState.PRUNED, None, None)
    assert (first.user_attrs["loss"], second.user_attrs["loss"]) == (1.5, 3.0)
    assert first.intermediate_values == {2 * TOKENS: 1.5}
    assert second.intermediate_values == {2 * TOKENS: 1.5, 4 * TOKENS: 3.0}
    assert second.user_attrs["tokens"] == 4 * TOKENS
    assert second.user_attrs["seconds"] == 0.5
    share = space.cost(policy, "params") / space.cost(space.dense, "params")
    assert second.user_attrs["share.params"] == pytest.approx(share)
    assert second.constraints == {"budget.params": pytest.approx(share - 0.5)}
    study = study_of(tmp_path / "run")
    assert study.user_attrs["subject"] == "toy"
    assert study.user_attrs["agent"] == "evolution"
    assert study.user_attrs["budgets"] == pytest.approx(space.budgets)
    assert study.metric_names == ["loss"]
    journal_id = json.loads((tmp_path / "run" / "journal.jsonl").read_text().splitlines()[0])["id"]
    assert {trial.user_attrs["run"] for trial in study.trials} == {journal_id}


def test_a_trial_of_a_mask(tmp_path: Path) -> None:
    space = masked_space()
    rng = np.random.default_rng(1)
    kept = [rng.random(groups) < 0.4 for groups in space.groups]
    mask = Mask.pack(kept)
    scores = [Score(mask, (0,), [1.0], 0.1), Score(space.uniform(), (0,), [1.0], 0.2)]
    first, second = recorded(tmp_path / "run", space, scores)
    assert first.params == {f"{unit.name}.kept": int(k.sum()) for unit, k in zip(space.units, kept, strict=True)}
    assert Mask(bytes.fromhex(first.user_attrs["mask"])) == mask
    share = space.cost(mask, "params") / space.cost(space.dense, "params")
    assert first.user_attrs["share.params"] == pytest.approx(share)
    assert "mask" not in second.user_attrs


def test_costs_as_values(tmp_path: Path) -> None:
    space = toy_space(latency=0.7)
    policy = space.uniform()
    (trial,) = recorded(tmp_path / "run", space, [Score(policy, (0, 1), [1.0, 2.0], 0.1)], metrics=("params",))
    assert (trial.state, trial.values, trial.user_attrs["loss"]) == (TrialState.PRUNED, None, 1.5)
    assert trial.intermediate_values == {}
    assert set(trial.constraints) == {"budget.params", "budget.latency"}
    assert study_of(tmp_path / "run").metric_names == ["loss", "params"]


def test_probes_break_budgets_and_overflows_are_failed_trials(tmp_path: Path) -> None:
    space = toy_space()
    scores = [Score(space.dense, (0,), [0.0], 0.1), Score(space.uniform(), (0, 1), [1.0, math.inf], 0.2)]
    scores.append(Score(space.uniform(), (2,), [1.0], 0.3))
    dense, overflow, again = recorded(tmp_path / "run", space, scores)
    assert dense.constraints["budget.params"] == pytest.approx(0.5)
    for trial in (overflow, again):
        assert (trial.state, trial.values, trial.intermediate_values) == (TrialState.FAIL, None, {})


def test_the_answer_is_named(tmp_path: Path) -> None:
    space = masked_space()
    mask = Mask.prefix([1] * len(space.units), space.groups)
    with recording(tmp_path / "run", space) as (journal, record):
        journal.append([Score(mask, (0,), [1.0], 0.1)])
        record.answer(mask, 1.0, TOKENS)
    answer = study_of(tmp_path / "run").user_attrs[f"answer.{journal.id}"]
    assert (answer["loss"], answer["tokens"], answer["mask"]) == (1.0, TOKENS, mask.bits.hex())
    assert {answer[f"{unit.name}.kept"] for unit in space.units} == {1}
    assert len(trials(tmp_path / "run")) == 1  # what nobody had asked to be written yet


def ended(run: Path, space: SearchSpace, scores: Sequence[Score], answer: Proposal, **options: Any) -> optuna.Study:
    """The study of a search that ended with an answer."""
    with recording(run, space, **options) as (journal, record):
        journal.append(scores[len(journal.scores) :])
        record.write()
        known = {proposal: (loss, n * TOKENS) for proposal, loss, n in archive(scores, space)}
        last = [(proposal, *known[proposal]) for proposal in finalists(archive(scores, space), answer)]
        record.answer(answer, *known[answer], last)
    return study_of(run, options.get("storage"), options.get("name"))


def archive(scores: Sequence[Score], space: SearchSpace) -> list[tuple[Proposal, float, int]]:
    """As an objective has it: candidates, their mean losses, sequences."""
    losses: dict[Proposal, dict[int, float]] = {}
    for score in scores:
        losses.setdefault(score.proposal, {}).update(zip(score.sequences, score.losses, strict=True))
    return [(p, float(np.mean(list(known.values()))), len(known)) for p, known in losses.items() if space.feasible(p)]


@pytest.fixture
def misleading() -> tuple[SearchSpace, list[Score], Levels, Levels]:
    """Scores of which the answer is not the lowest, the answer, and one that is as well known."""
    space, rng, everything = toy_space(), np.random.default_rng(0), tuple(range(SEQUENCES))
    lucky, other, found, half = (space.sample(rng) for _ in range(4))
    scores = [
        Score(lucky, (0,), [0.1], 0.1),  # before anything was scored on more
        Score(space.dense, everything, [0.0] * SEQUENCES, 0.2),
        Score(other, everything, [0.9] * SEQUENCES, 0.3),
        Score(found, everything, [0.8] * SEQUENCES, 0.4),
        Score(other, (0,), [0.1], 0.5),
        Score(half, everything[: SEQUENCES // 2], [0.2] * (SEQUENCES // 2), 0.6),  # half as many, and lucky
        Score(space.sample(rng), (0, 1, 2), [0.1] * 3, 0.7),
    ]
    return space, scores, found, other


def test_best_trial_is_the_answer(
    tmp_path: Path, misleading: tuple[SearchSpace, list[Score], Levels, Levels], sqlite: str
) -> None:
    """For Optuna, for dashboards, which ask the storage, and where two runs share a study."""
    space, scores, found, other = misleading
    for options in ({}, {"storage": sqlite}):
        study = ended(tmp_path / f"run{len(options)}", space, scores, found, **options)
        storage_says = study._storage.get_best_trial(study._study_id)
        assert study.best_trial.number == storage_says.number == len(scores)
        assert list(study.best_trial.params.values()) == list(found)
        complete = study.get_trials(states=[TrialState.COMPLETE])
        assert [list(trial.params.values()) for trial in complete] == [list(found), list(other)]
        assert all(value <= 0 for value in study.best_trial.constraints.values())
        again = ended(tmp_path / f"run{len(options)}", space, scores, found, **options)
        assert len(again.trials) == len(study.trials)
    worse = [Score(score.proposal, score.sequences, [10 + x for x in score.losses], 1.0) for score in scores]
    shared = {"storage": sqlite, "name": "shared"}
    ended(tmp_path / "a", space, worse, other, **shared)
    assert ended(tmp_path / "b", space, scores, found, **shared).best_trial.value == pytest.approx(0.8)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("in_database", [False, True])
def test_a_run_that_went_on_after_its_end_has_its_new_answer(
    tmp_path: Path,
    misleading: tuple[SearchSpace, list[Score], Levels, Levels],
    sqlite: str,
    in_database: bool,
    shared: bool,
) -> None:
    """Finished trials cannot be changed: the study is written again, unless it is of other runs, too."""
    space, scores, found, other = misleading
    options: dict[str, Any] = {"storage": sqlite, "name": "study"} if in_database else {}
    run, everything = tmp_path / "run", tuple(range(SEQUENCES))
    first = ended(run, space, scores[:3], other, **options)
    assert list(first.best_trial.params.values()) == list(other)
    if shared and in_database:
        recorded(tmp_path / "another", space, scores[:2], **options)
    study = ended(run, space, scores, found, **options)
    assert list(study.best_trial.params.values()) == list(found)
    finals = len([trial for trial in study.trials if trial.user_attrs.get("final")])
    assert finals == (3 if shared and in_database else 2), "in a database of others the earlier ones stay"
    if not (shared and in_database):
        assert [told(trial) for trial in study.trials[: len(scores)]] == [
            told(trial) for trial in ended(tmp_path / "run at once", space, scores, found).trials[: len(scores)]
        ]
    shorter = ended(run, space, [*scores, Score(other, everything, [0.1] * SEQUENCES, 1.0)], other, **options)
    assert list(shorter.best_trial.params.values()) == list(other)
    assert shorter.user_attrs["subject"] == "toy"
    assert sum(key.startswith("answer.") for key in shorter.user_attrs) == 1


def test_a_search_that_has_not_ended_has_no_best_trial(tmp_path: Path) -> None:
    space = toy_space()
    recorded(tmp_path / "run", space, searched(space))
    with pytest.raises(ValueError, match="No trials are completed yet"):
        _ = study_of(tmp_path / "run").best_trial


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    space = toy_space()
    scores = searched(space)
    best = min(archive(scores, space), key=lambda one: (-one[2], one[1]))[0]
    study, names = ended(tmp_path / "run", space, scores, best), [unit.name for unit in space.units[:3]]
    plots = optuna.visualization
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plotly's own
        assert plots.plot_optimization_history(study).data
        assert plots.plot_slice(study, params=names).data
        assert plots.plot_intermediate_values(study).data
        assert plots.plot_param_importances(study).data


# -- killed and resumed ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Score], list[dict[str, Any]]]:
    """A run that was never interrupted."""
    run, space = tmp_path_factory.mktemp("whole") / "run", toy_space()
    scores = searched(space)
    return run, scores, [told(trial) for trial in recorded(run, space, scores)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_anywhere_and_resumed_the_study_is_as_if_never_stopped(
    whole: tuple[Path, list[Score], list[dict[str, Any]]], tmp_path: Path, data: st.DataObject
) -> None:
    finished, scores, expected = whole
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(finished, run)
    for name in data.draw(st.sets(st.sampled_from((FILE, "journal.jsonl")), min_size=1)):
        raw = (run / name).read_bytes()
        (run / name).write_bytes(raw[: data.draw(st.integers(0, len(raw)), label=name)])
    assert [told(trial) for trial in recorded(run, toy_space(), scores)] == expected


def test_a_torn_line_and_a_stale_lock_hold_up_nothing(
    whole: tuple[Path, list[Score], list[dict[str, Any]]], tmp_path: Path
) -> None:
    finished, scores, expected = whole
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    study = run / FILE
    study.write_bytes(study.read_bytes()[:-20])
    (run / (FILE + ".lock")).symlink_to(study)
    (run / (FILE + ".lock1234.rename")).symlink_to(study)
    assert [told(trial) for trial in recorded(run, toy_space(), scores)] == expected
    assert sorted(path.name for path in run.iterdir()) == ["journal.jsonl", FILE]


def test_a_study_file_that_is_gone_is_written_again(
    whole: tuple[Path, list[Score], list[dict[str, Any]]], tmp_path: Path
) -> None:
    finished, scores, expected = whole
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / FILE).unlink()
    assert [told(trial) for trial in recorded(run, toy_space(), scores)] == expected


def test_a_renamed_run_keeps_its_study(whole: tuple[Path, list[Score], list[dict[str, Any]]], tmp_path: Path) -> None:
    finished, scores, expected = whole
    run = Path(shutil.copytree(finished, tmp_path / "renamed"))
    with recording(run, toy_space()) as (journal, _):
        assert len(journal.scores) == len(scores)
    assert optuna.get_all_study_names(open_storage(run, None)) == ["run"]
    assert [told(trial) for trial in trials(run, None, "run")] == expected


def test_a_journal_from_before_runs_had_names_is_recorded_once(tmp_path: Path) -> None:
    run, space = tmp_path / "run", toy_space()
    scores = searched(space)
    recorded(run, space, scores)
    journal = run / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([json.dumps(HEADER | {"subject": "toy"}) + "\n", *lines[1:]]))
    assert len(recorded(run, space, scores)) == len(scores)


def test_a_study_file_damaged_in_the_middle(
    whole: tuple[Path, list[Score], list[dict[str, Any]]], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(whole[0], tmp_path / "run"))
    lines = (run / FILE).read_bytes().splitlines(keepends=True)
    for wrong in (b"{broken\n", b'{"op_code": 4}\n', b"[]\n"):
        (run / FILE).write_bytes(b"".join([*lines[:3], wrong, *lines[4:]]))
        with pytest.raises(UserError, match=r"is damaged .* delete it"), recording(run, toy_space()):
            pass


# -- storages ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_two_runs_share_a_study(sqlite: str, tmp_path: Path) -> None:
    space = toy_space()
    scores = searched(space)
    shared = {"storage": sqlite, "name": "shared"}
    with (
        recording(tmp_path / "a", space, **shared) as (a, record_a),
        recording(tmp_path / "b", space, **shared) as (
            b,
            record_b,
        ),
    ):
        for start in range(0, len(scores), 5):
            for journal, record in ((a, record_a), (b, record_b)):
                journal.append(scores[start : start + 5])
                record.write()
    assert a.id != b.id
    recorded(tmp_path / "a", space, scores, **shared)
    there = trials(tmp_path, sqlite, "shared")
    for run in (a.id, b.id):
        own = [trial for trial in there if trial.user_attrs["run"] == run]
        assert [trial.user_attrs["seconds"] for trial in own] == [score.seconds for score in scores]
    assert len(there) == 2 * len(scores)


def test_resume_in_a_database_writes_what_is_missing(
    sqlite: str, whole: tuple[Path, list[Score], list[dict[str, Any]]], tmp_path: Path
) -> None:
    _, scores, expected = whole
    run = tmp_path / "run"
    recorded(run, toy_space(), scores[:5], storage=sqlite)
    with closing(Journal(run / "journal.jsonl", "toy")) as journal:
        journal.append(scores[5:9])  # and killed before they were recorded
    assert [told(trial) for trial in recorded(run, toy_space(), scores, storage=sqlite)] == expected


def test_a_study_about_something_else_is_refused(sqlite: str, tmp_path: Path) -> None:
    space = toy_space(latency=0.7)
    recorded(tmp_path / "a", space, [], storage=sqlite, name="one")
    with (
        pytest.raises(
            UserError, match=r"'one' is about another .* \(toy\) .* \(another\): choose another --study-name"
        ),
        recording(tmp_path / "b", space, "another", storage=sqlite, name="one"),
    ):
        pass
    with (
        pytest.raises(UserError, match=r"1 values a trial, .* have 2 \(loss, latency\): choose another --study-name"),
        recording(tmp_path / "c", space, storage=sqlite, name="one", metrics=("latency",)),
    ):
        pass


BAD_URLS = {
    "nonsense": ("'nonsense'", "sqlite:///"),
    "": ("''", "sqlite:///"),
    "nobody://localhost/x": ("'nobody://localhost/x'", "nobody"),
    "sqlite:////nowhere/at/all.db": ("'sqlite:////nowhere/at/all.db'", "unable to open database file"),
    "oracle://u:secret@localhost/x": ("'oracle://u:***@localhost/x'", "No module named"),
    "postgresql+psycopg2cffi://u:secret@localhost/x": ("psycopg2cffi://u:***@localhost/x'", "No module named"),
    "postgresql+psycopg://u:sec@ret@localhost/x": ("'postgresql+psycopg://u:***@localhost/x'", "%40"),
    "postgresql+psycopg://u:p@ss:w@rd@localhost/x": ("'postgresql+psycopg://u:***@localhost/x'", "%40"),
    "redis://localhost": ("'redis://localhost'", "redis"),
}  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_storage(refused: Refused, tmp_path: Path, url: str) -> None:
    sentence = refused("search", "--storage", url, "--out", "run", seen=("Optuna storage", *BAD_URLS[url]))
    assert "secret" not in sentence
    assert "w@rd" not in sentence
    assert list(tmp_path.iterdir()) == []


def test_no_server(refused: Refused, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://nobody@localhost:1/x"
    refused("search", "--storage", url, "--out", "run", seen=(f"'{url}' cannot be used", "onnection", "refused"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///studies.db", "sqlite:///studies.db"),
        ("sqlite:////tmp/a b.db", "sqlite:////tmp/a b.db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://user@host:5432/db", "postgresql://user@host:5432/db"),
        ("postgresql://user:secret@host:5432/db", "postgresql://user:***@host:5432/db"),
        ("postgresql+psycopg://user:secret@[::1]:5432/db", "postgresql+psycopg://user:***@[::1]:5432/db"),
        ("mysql://user:s%40c%3Aret@host/db", "mysql://user:***@host/db"),
        ("mysql://user:p@ss:secret@host/db", "mysql://user:***@host/db"),
        ("mysql://user:sec/ret@host/db", "mysql://user:***@host/db"),
        ("mysql://user:sec\nret@host/db", "mysql://user:***@host/db"),
        ("mysql://us@er:secret@host/db", "mysql://us@er:***@host/db"),
        ("mysql://us/er:secret@host/db", "mysql://us/er:***@host/db"),
        ("mysql://:secret@host/db", "mysql://:***@host/db"),
        ("mysql://user:@host/db", "mysql://user:***@host/db"),
        ("user:secret@host/db", "user:***@host/db"),
        ("postgresql://host/db?user=u&password=secret&x=1", "postgresql://host/db?user=u&password=***&x=1"),
        ("postgresql://host/db?sslPassword=secret", "postgresql://host/db?sslPassword=***"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_check_storage_leaves_a_database_that_can_be_used(sqlite: str, tmp_path: Path) -> None:
    check_storage(None)
    check_storage(sqlite)
    check_storage(sqlite)
    assert optuna.get_all_study_names(open_storage(tmp_path, sqlite)) == []


def test_an_answer_that_was_written_elsewhere_is_found_in_the_tables(sqlite: str, tmp_path: Path) -> None:
    """Other programs read the tables without Optuna."""
    space = toy_space()
    recorded(tmp_path / "run", space, searched(space, 3), storage=sqlite)
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database:
        query = "SELECT COUNT(DISTINCT trial_id) FROM trial_intermediate_values"
        (losses,) = database.execute(query).fetchone()
    assert losses == len(searched(space, 3))


# -- storages that are lost --------------------------------------------------------------------------------------------


def test_a_storage_lost_in_the_search_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, run = toy_space(), tmp_path / "run"
    scores = searched(space)
    add, calls = optuna.Study.add_trial, []

    def lost(study: optuna.Study, trial: FrozenTrial) -> None:
        calls.append(trial)
        if len(calls) > 3:
            raise ConnectionError("the server went away.\nand more")
        add(study, trial)

    run.mkdir()
    with monkeypatch.context() as patch, closing(Journal(run / "journal.jsonl", "toy")) as journal:
        patch.setattr(optuna.Study, "add_trial", lost)
        record = Record(run, journal, space, TOKENS)
        for score in scores:
            journal.append([score])
            record.write()
        record.answer(scores[0].proposal, 1.0, TOKENS)
        problem = record.close()
    assert problem is not None
    assert problem.startswith("the Optuna study could not be written (the server went away). ")
    assert len(calls) == 4
    assert len(trials(run)) == 3
    assert len(recorded(run, space, scores)) == len(scores)


def warned(cli: Cli, *arguments: object) -> Answer:
    """A command that ends well and says what is missing; warnings are no errors at the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", RuntimeWarning)
        answer = cli(*arguments)
    assert answer.status == 0, answer.err
    assert "autoprune: warning: the Optuna study could not be written (" in answer.err
    assert "`autoprune resume` writes what is missing." in answer.err
    return answer


def test_a_run_whose_storage_is_lost_warns_and_ends(
    cli: Cli, quick_arguments: list[str], sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def lost(study: optuna.Study, trial: FrozenTrial) -> None:
            raise ConnectionError("the server went away")

        patch.setattr(optuna.Study, "add_trial", lost)
        own = ["agent_options.slope_sequences=0", "--out", "run", "--storage", sqlite]
        answer = warned(cli, "search", *quick_arguments, *own)
    assert "study could not be written (the server went away)" in answer.err
    assert Path("run/policy.json").exists()
    assert trials(Path("run"), sqlite) == []
    assert cli("resume", "run").status == 0
    assert len(scored(trials(Path("run"), sqlite))) == QUICK_EVALS


def full_disk(patch: pytest.MonkeyPatch, room: int) -> None:
    """From now on, study files take `room` appends, and of the next one a part. (/dev/full cannot be read back.)"""
    append, calls = JournalFileBackend.append_logs, []

    def full(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        calls.append(logs)
        if len(calls) <= room:
            append(self, logs)
            return
        with open(self._file_path, "ab") as file:
            file.write(json.dumps(logs[0]).encode()[:50])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(JournalFileBackend, "append_logs", full)


@pytest.mark.parametrize("room", [0, 1, 9])
def test_a_full_disk_warns_and_resume_writes_what_is_missing(
    cli: Cli, quick_arguments: list[str], monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    with monkeypatch.context() as patch:
        full_disk(patch, room)
        answer = warned(cli, "search", *quick_arguments, "agent_options.slope_sequences=0", "--out", "run")
    assert "No space left" in answer.err
    assert Path("run/policy.json").exists()
    assert cli("resume", "run").status == 0
    assert len(scored(trials(Path("run")))) == QUICK_EVALS


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_every_run_has_a_study(finished_run: Path) -> None:
    study = study_of(finished_run)
    lines = [json.loads(line) for line in (finished_run / "journal.jsonl").read_text().splitlines()]
    assert len(scored(study.trials)) == len(lines) - 1 == QUICK_EVALS
    policy = json.loads((finished_run / "policy.json").read_text())
    answer = study.user_attrs[f"answer.{lines[0]['id']}"]
    assert answer["loss"] == policy["losses"]["search"]
    assert {unit["name"]: unit["level"] for unit in policy["units"]}.items() <= answer.items()
    assert study.best_trial.value == policy["losses"]["search"]
    assert {unit["name"]: unit["level"] for unit in policy["units"]} == study.best_trial.params
    for trial, line in zip(scored(study.trials), lines[1:], strict=True):
        assert list(trial.params.values()) == line["levels"]
        assert trial.user_attrs["seconds"] == line["seconds"]
