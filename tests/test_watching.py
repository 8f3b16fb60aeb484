"""The live page over HTTP: who may ask, what is shown of runs in every state, and what it changes."""

import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from autoprune import limits_of_runs, policy, run_state, rundir, stopping
from autoprune.evaluation import slopes
from autoprune.reports import gathering
from autoprune.reports.run import record_of
from autoprune.watching import run_reader
from autoprune.watching.run_reader import RunReader
from tests.watching_pages import watching

pytest.importorskip("starlette", reason="needs autoprune[watch]")
pytest.importorskip("uvicorn", reason="needs autoprune[watch]")

from starlette.testclient import TestClient

from autoprune.watching.control import Control, Limits, command
from autoprune.watching.folder import Folder
from autoprune.watching.guard import Guard
from autoprune.watching.server import application

Refused = Callable[..., str]
HOSTILE = "<img src=x onerror=alert(1)>\"'&"
BASE = "http://127.0.0.1:8090"


@pytest.fixture
def runs(finished_run: Path, tmp_path: Path) -> Path:
    """A folder with a copy of a finished run."""
    shutil.copytree(finished_run, tmp_path / "runs" / "run")
    return tmp_path / "runs"


def guarded(folder: Path, control: Control | None = None, host: str = "127.0.0.1", base: str = BASE) -> TestClient:
    """A browser that has not visited the page yet."""
    return TestClient(Guard(application(Folder(folder), control), host, "secret"), base_url=base)


def visiting(folder: Path, control: Control | None = None) -> TestClient:
    """A browser that has opened the printed address."""
    client = guarded(folder, control)
    assert client.get("/", params={"token": "secret"}).status_code == 200
    return client


def page(client: TestClient, name: str = "") -> dict[str, Any]:
    answer = client.get("/api/page", params={"name": name})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def shown(client: TestClient, name: str = "") -> str:
    """All HTML of a page."""
    return "".join(page(client, name)["parts"].values())


# -- who may ask -------------------------------------------------------------------------------------------------------


def test_the_token_is_needed_and_moves_into_a_cookie(runs: Path) -> None:
    client = guarded(runs)
    for path in ("/", "/watch.js", "/api/page", "/nothing"):
        assert client.get(path).status_code == 403
        assert client.get(path, params={"token": "wrong\u00e9"}).status_code == 403
    answer = client.get("/", params={"token": "secret"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secret" not in client.get("/").text
    assert client.get("/api/page").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8090", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
def test_a_name_of_someone_else_is_refused(runs: Path, host: str) -> None:
    """DNS rebinding: a page of the name's owner would otherwise read what this server says."""
    assert visiting(runs).get("/api/page", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8090", "127.0.0.1", "[::1]:8090", "192.168.1.2:8090", "Box.Local:1"])
def test_own_names_are_answered(runs: Path, host: str) -> None:
    client = guarded(runs, host="box.local")
    assert client.get("/api/page", params={"token": "secret"}, headers={"host": host}).status_code == 200


def test_every_answer_forbids_what_is_not_of_this_server(runs: Path) -> None:
    client = visiting(runs)
    for answer in (client.get("/"), client.get("/api/page"), client.get("/nowhere"), guarded(runs).get("/")):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
    for path in ("/", "/watch.js", "/watch.css", "/icon.svg"):
        assert "://" not in client.get(path).text.replace("http://www.w3.org/2000/svg", "")


def test_what_changes_something_comes_from_this_page(runs: Path) -> None:
    client = visiting(runs, Control())
    own, body = {"origin": BASE}, {"name": "run"}
    assert client.post("/api/stop", json=body, headers=own).status_code == 409
    for origin in ("http://evil.example", "http://127.0.0.1:9999", "null", ""):
        assert client.post("/api/stop", json=body, headers={"origin": origin}).status_code == 403
    assert client.post("/api/stop", json=body).status_code == 403
    assert client.post("/api/stop", data=body, headers=own).status_code == 415
    assert client.post("/api/stop", json={"name": "x" * 20_000}, headers=own).status_code == 413
    assert (
        client.post("/api/stop", content=b"[1]", headers=own | {"content-type": "application/json"}).status_code == 400
    )
    assert guarded(runs, Control()).post("/api/stop", json=body, headers=own).status_code == 403
    assert client.get("/api/stop").status_code == 405


def test_no_name_leads_out_of_the_folder(runs: Path, tmp_path: Path, finished_run: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "outside")
    (runs / "link").symlink_to(tmp_path / "outside")
    (runs / "run" / "inner").symlink_to(tmp_path / "outside")
    client = visiting(runs)
    for name in (
        "../outside",
        "link",
        "run/../../outside",
        str(tmp_path / "outside"),
        "run/inner",
        "%2e%2e/outside",
        ".",
    ):
        assert client.get("/api/page", params={"name": name}).status_code == 404, name
    for path in ("/../pyproject.toml", "/static/../server.py", "//etc/passwd", "/run/config.yaml"):
        assert client.get(path).status_code == 404
    journal = runs / "run" / "journal.jsonl"
    journal.unlink()
    journal.symlink_to("/etc/passwd")
    (runs / "run" / "inner").unlink()
    assert "is a symbolic link" in shown(client, "run")


def test_hostile_texts_stay_texts(runs: Path) -> None:
    path = runs / "run" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {"agent": HOSTILE, "model": HOSTILE, "device": HOSTILE}))
    (runs / "run").rename(runs / HOSTILE.replace("/", ""))
    journal = runs / HOSTILE / "journal.jsonl"
    journal.write_text(journal.read_text() + f'{{"levels": {json.dumps(HOSTILE)}}}\n')
    client = visiting(runs)
    for html in (shown(client), shown(client, HOSTILE)):
        assert "<img" not in html
        assert "&lt;img" in html
    assert guarded(runs).get("/api/page", params={"name": HOSTILE}).headers["content-type"].startswith("text/plain")


# -- runs in every state -----------------------------------------------------------------------------------------------


def test_a_finished_run(runs: Path) -> None:
    found = page(visiting(runs), "run")
    policy = json.loads((runs / "run" / "policy.json").read_text())
    html = "".join(found["parts"].values())
    assert found["state"] == "Finished"
    assert f"{policy['losses']['search']:.4f}" in found["parts"]["facts"]
    assert "40 of 40 (100.0" in found["parts"]["progress"]
    assert "params" in found["parts"]["progress"]
    for unit in policy["units"]:  # kept of every unit
        assert f"{unit['name']}: " in found["parts"]["units"]
    assert 'role="img"' in found["parts"]["curve"]
    assert "Validation" in html
    assert found["can"] == {"stop": False, "resume": False}, "only --control can"


def test_what_has_not_changed_is_not_sent_again(runs: Path) -> None:
    client = visiting(runs)
    answer = client.get("/api/page", params={"name": "run"})
    asked = {"name": "run", "seen": answer.headers["x-version"]}
    assert client.get("/api/page", params=asked).status_code == 204
    (runs / "run" / "result.json").unlink()
    assert client.get("/api/page", params=asked).status_code == 200


def killed(run: Path) -> Path:
    for name in ("policy.json", "result.json"):
        (run / name).unlink()
    return run


def test_a_search_at_work_a_killed_one_and_one_that_was_stopped(runs: Path) -> None:
    run, client = killed(runs / "run"), visiting(runs, Control())
    with rundir.locked(run):
        found = page(client, "run")
        assert (found["state"], found["can"]) == ("Searching", {"stop": True, "resume": False})
        assert "Time left" in found["parts"]["facts"]
        assert "per second" in found["parts"]["facts"]
    found = page(client, "run")
    assert (found["state"], found["can"]) == ("Not at work", {"stop": False, "resume": True})


def test_a_run_that_was_stopped_in_order(runs: Path) -> None:
    path = runs / "run" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"interrupted": True}))
    assert page(visiting(runs), "run")["state"] == "Stopped"


def test_a_finished_run_that_got_other_limits_and_was_killed(runs: Path) -> None:
    limits_of_runs.change(runs / "run", {"max_evals": 40})
    assert page(visiting(runs), "run")["state"] == "Finished", "those are its limits"
    limits_of_runs.change(runs / "run", {"max_evals": 60})
    client = visiting(runs, Control())
    found = page(client, "run")
    assert (found["state"], found["can"]) == ("Stopped", {"stop": False, "resume": True})
    assert "It can go on where it was." in found["parts"]["notices"]
    assert "Stopped" in page(client)["parts"]["runs"]


def test_a_run_that_prepares(runs: Path) -> None:
    run, client = killed(runs / "run"), visiting(runs)
    (run / "space.json").rename(run / "space")
    (run / "journal.jsonl").rename(run / "journal")
    with rundir.locked(run):
        assert page(client, "run")["state"] == "Preparing"
        (run / "space").rename(run / "space.json")
        found = page(client, "run")
        assert found["state"] == "Preparing"
        assert "nothing scored yet" in found["parts"]["progress"]
        (run / "journal").rename(run / "journal.jsonl")
        assert page(client, "run")["state"] == "Searching"


def test_a_journal_that_grows_is_read_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = killed(runs / "run")
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:10]) + lines[10][:30])
    reader, read = RunReader(run), []
    whole = gathering.Gathering.read

    def counted(self: gathering.Gathering, line: str | bytes) -> None:
        read.append(line)
        whole(self, line)

    monkeypatch.setattr(gathering.Gathering, "read", counted)
    for expected, more in ((10, lines[10][30:]), (11, b"".join(lines[11:])), (len(lines), b"")):
        seen = reader.read()
        assert seen.run is not None
        assert seen.problem is None
        assert len(read) == expected
        assert seen.run.spent.evals == expected - 1
        with journal.open("ab") as file:
            file.write(more)
    journal.unlink()
    journal.write_bytes(b"".join(lines[:5]))  # another one in its place
    seen = reader.read()
    assert seen.run is not None
    assert seen.run.spent.evals == 4


def test_a_long_journal_is_read_in_parts(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with lines that are longer than a part."""
    monkeypatch.setattr(run_reader, "CHUNK", 50)
    monkeypatch.setattr(run_reader, "PATIENCE", 1e-9)
    reader, scored = RunReader(killed(runs / "run")), []
    for _ in range(60):
        seen = reader.read()
        if seen.problem is not None:
            assert seen.problem.startswith("The journal is long and is still being read: ")
        scored.append(seen.run.spent.evals if seen.run else 0)
    assert scored == sorted(scored)
    assert len(set(scored)) > 20
    assert scored[-1] == 40
    assert seen.problem is None


def test_a_curve_keeps_its_corners() -> None:
    history = [(1, 0.1, 3.0), (2, 0.2, 3.0), (3, 0.3, 2.0), (4, 0.4, 2.0), (5, 0.5, 2.0)]
    assert run_reader.steps(history) == [history[0], history[2], history[4]]
    assert run_reader.steps([]) == []
    falling = [(i, float(i), -float(i)) for i in range(10_000)]
    assert len(run_reader.steps(falling)) <= run_reader.POINTS


def test_a_damaged_journal_is_shown_up_to_the_damage(runs: Path) -> None:
    run, client = killed(runs / "run"), visiting(runs)
    journal = run / "journal.jsonl"
    sound = journal.read_bytes()
    lines = sound.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:8], b'{"levels": [\xff]}\n', *lines[8:]]))
    for _ in range(2):
        found = page(client, "run")
        assert "line 9 of the journal" in found["parts"]["notices"]
        assert ">7<" in found["parts"]["facts"]
    journal.write_bytes(sound)
    found = page(client, "run")
    assert "line 9" not in found["parts"]["notices"]
    assert ">40<" in found["parts"]["facts"]


@pytest.mark.parametrize("name", ["config.yaml", "space.json", "result.json", "policy.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1, 2", b"{}", b'{"units": 7}'])
def test_damaged_files_are_sentences(runs: Path, name: str, content: bytes) -> None:
    path = runs / "run" / name
    sound = path.read_bytes()
    client = visiting(runs)
    path.write_bytes(content)
    assert page(client, "run")["state"] in ("Damaged", "Finished")
    page(client)
    path.write_bytes(sound)
    assert page(client, "run")["state"] == "Finished"


def test_a_run_that_is_removed_while_it_is_watched(runs: Path) -> None:
    client = visiting(runs / "run")
    assert page(client)["state"] == "Finished"
    shutil.rmtree(runs / "run")
    assert client.get("/api/page").status_code == 404


def test_slopes_count_as_they_are_charged() -> None:
    assert gathering.SLOPE_PASSES == slopes.PASSES


# -- what a search tells of itself ------------------------------------------------------------------------------------


def test_the_incumbent_is_what_the_search_would_answer(quick: dict[str, Any], tmp_path: Path) -> None:
    """Agents may declare an answer that is not the lowest loss; the journal alone does not tell it."""
    import autoprune

    class Look(autoprune.Callback):
        def __init__(self) -> None:
            self.stages: list[str | None] = []
            self.agreed = 0

        def on_stage(self, stage: str, share: float) -> None:
            if (path / "config.yaml").exists() and rundir.is_in_use(path):
                self.stages.append(reader.read().stage)

        def on_scores(self, objective: Any) -> None:
            seen = reader.read()
            assert seen.state == "searching"
            assert seen.run is not None
            assert seen.run.spent.tokens == objective.spent.tokens
            if objective.incumbents:
                assert seen.run.best is not None
                assert seen.run.best.numbers == objective.incumbents[-1].proposal
                assert seen.run.best.loss == objective.loss(seen.run.best.numbers)[0]
                self.agreed += 1

    path, look = tmp_path / "run", Look()
    reader = RunReader(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_state, "EVERY", 0.0)
        autoprune.search(**quick, out=path, callbacks=[look])
    assert look.agreed > 3
    assert look.stages[0] == "loading the model, 0%"
    assert not (path / rundir.STATE).exists()


@pytest.mark.parametrize("content", ["", "[]", '{"stage": 3}', '{"stage": "x", "share": 0, "best": {"levels": [99]}}'])
def test_what_is_told_wrongly_is_not_believed(runs: Path, content: str) -> None:
    run, client = killed(runs / "run"), visiting(runs)
    with rundir.locked(run):
        (run / rundir.STATE).write_text(content)
        found = page(client, "run")
        assert found["state"] in ("Searching", "Preparing")
        assert ">40<" in found["parts"]["facts"]
    assert not (run / rundir.STATE).exists()


# -- folders and comparisons -------------------------------------------------------------------------------------------


def test_a_folder_lists_its_runs(runs: Path) -> None:
    shutil.copytree(runs / "run", runs / "second run")
    (runs / "no run").mkdir()
    (runs / "file.txt").touch()
    html = shown(visiting(runs))
    assert 'href="#/run"' in html
    assert 'href="#/second%20run"' in html
    assert "no run" not in html
    (runs / "empty").mkdir()
    assert "no run in this folder yet" in shown(visiting(runs / "empty"))


def test_a_comparison(quick: dict[str, Any], tmp_path: Path) -> None:
    import autoprune

    path = tmp_path / "runs" / "cmp"
    autoprune.compare(["random", "greedy"], seeds=1, out=path, **quick | {"max_evals": 12})
    for client, name in ((visiting(tmp_path / "runs"), "cmp"), (visiting(path), "")):
        found = page(client, name)
        assert found["state"] == "Finished"
        assert "Agents" in found["parts"]["league"]
        assert 'role="img"' in found["parts"]["curves"]
        for run in ("random-s0", "greedy-s0"):
            assert run in found["parts"]["searches"]
            assert page(client, f"{name}/{run}".lstrip("/"))["state"] == "Finished"
    (path / "league.json").write_text("{")
    shutil.rmtree(path / "greedy-s0")
    found = page(client)
    assert found["state"] == "Not at work"
    assert "Not begun yet: greedy-s0" in found["parts"]["searches"]
    assert "cannot be read" in found["parts"]["notices"] or "damaged" in found["parts"]["notices"]


# -- control -----------------------------------------------------------------------------------------------------------


def test_without_control_nothing_is_changed(runs: Path) -> None:
    client = visiting(runs)
    with rundir.locked(killed(runs / "run")):
        for what in ("stop", "resume"):
            answer = client.post(f"/api/{what}", json={"name": "run"}, headers={"origin": BASE})
            assert answer.status_code == 403
            assert "--control" in answer.json()["problem"]
        assert not stopping.is_asked(runs / "run")
        assert page(client, "run")["can"] == {"stop": False, "resume": False}


def test_stop_asks_the_search_that_is_at_work(runs: Path) -> None:
    run, client, own = killed(runs / "run"), visiting(runs, Control()), {"origin": BASE}
    answer = client.post("/api/stop", json={"name": "run"}, headers=own)
    assert "no process works on" in answer.json()["problem"]
    assert not stopping.is_asked(run)
    with rundir.locked(run):
        assert client.post("/api/stop", json={"name": "run"}, headers=own).status_code == 200
        assert stopping.is_asked(run)
        assert "asked to stop" in shown(client, "run")
        answer = client.post("/api/resume", json={"name": "run"}, headers=own)
        assert "works on" in answer.json()["problem"]
    assert not stopping.is_asked(run), "what an earlier process was asked is not asked of the next one"
    stopping.ask(run)
    with rundir.locked(run):
        assert not stopping.is_asked(run)


def test_limits_are_checked(runs: Path) -> None:
    client = visiting(runs, Control())
    for asked in ({"max_tokens": 0}, {"max_evals": "many"}, {"max_time": -1}, {"max_tokens": 1.5}, {"agent": "x"}):
        answer = client.post("/api/resume", json={"name": "run", **asked}, headers={"origin": BASE})
        assert answer.status_code == 422, asked
    assert client.post("/api/resume", json={"name": "nowhere"}, headers={"origin": BASE}).status_code == 404


def test_a_name_is_never_an_option(tmp_path: Path) -> None:
    given = command(Path("--storage=x"), Limits(max_tokens=7, max_time=1.5))
    assert given[1:-1] == ["-m", "autoprune", "resume", "--max-tokens=7", "--max-time=1.5", "--"]
    assert given[-1] == str(Path("--storage=x").resolve())


@pytest.mark.slow
def test_why_a_search_could_not_go_on_is_told(runs: Path) -> None:
    control = Control()
    client = visiting(runs, control)
    assert client.post("/api/resume", json={"name": "run", "max_evals": 3}, headers={"origin": BASE}).status_code == 200
    for _ in range(300):
        if "could not go on" in (html := shown(client, "run")):
            break
        time.sleep(0.1)
    assert "has spent 40 evaluations, and max_evals=3 is lower" in html
    assert page(client, "run")["state"] == "Finished"


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_serves_until_ctrl_c_and_only_reads(runs: Path) -> None:
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    with watching(runs) as address:
        assert address.startswith("http://127.0.0.1:")
        token = address.partition("token=")[2]
        assert len(token) >= 32
        with urlopen(f"{address.partition('/?')[0]}/api/page?name=run&token={token}", timeout=30) as answer:
            assert json.loads(answer.read())["state"] == "Finished"
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


def test_what_is_refused(refused: Refused, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("watch", tmp_path / "nowhere", seen=("nowhere", "no directory"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused("watch", runs, "--port", port, seen=(f"127.0.0.1:{port}", "in use", "--port 0"))
    for host in ("no.such.host.invalid", "1.2.3.4", "x" * 100 + ".y"):
        refused("watch", runs, "--port", "0", "--host", host, seen=(host, "--host"))
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "autoprune.watching.server")
    refused("watch", runs, seen=("pip install 'autoprune[watch]'",))


def test_a_name_in_another_encoding_breaks_no_page(runs: Path) -> None:
    shutil.copytree(runs / "run", os.fsdecode(os.fsencode(runs) + b"/other\xff"))
    parts = page(visiting(runs))["parts"]
    assert parts["runs"].count("<a ") == 2


def test_an_origin_that_cannot_be_read_is_of_another(runs: Path) -> None:
    answer = visiting(runs, Control()).post("/api/stop", json={"name": "run"}, headers={"Origin": "http://[::1"})
    assert answer.status_code == 403


def test_a_folder_of_runs_is_not_resumed(runs: Path) -> None:
    answer = visiting(runs, Control()).post("/api/resume", json={"name": ""}, headers={"Origin": BASE})
    assert (answer.status_code, "open one of them" in answer.json()["problem"]) == (409, True)


def test_runs_that_have_ended_are_read_once_for_the_table(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def counted(path: Path, *rest: Any) -> Any:
        asked.append(path)
        return record_of(path, *rest)

    monkeypatch.setattr(run_reader, "record_of", counted)
    client = visiting(runs)
    before = page(client)
    assert (page(client), len(asked)) == (before, 1)
    (runs / "run" / "result.json").write_text("{")
    assert "Damaged" in page(client)["parts"]["runs"], "what has changed is read again"


def test_a_run_that_takes_long_to_read_keeps_no_other_page_waiting(
    runs: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_run, runs / "slow")
    begun, goes_on = threading.Event(), threading.Event()

    def slow(path: Path, *rest: Any) -> Any:
        if path.name == "slow":
            begun.set()
            assert goes_on.wait(30)
        return record_of(path, *rest)

    monkeypatch.setattr(run_reader, "record_of", slow)
    folder = Folder(runs)
    with ThreadPoolExecutor(1) as pool:
        table = pool.submit(page, visiting_of(folder))
        try:
            assert begun.wait(30)
            assert page(visiting_of(folder), "run")["state"] == "Finished"
        finally:
            goes_on.set()
        assert table.result()["parts"]["runs"].count("Finished") == 2


def visiting_of(folder: Folder) -> TestClient:
    """A browser of a page that others visit, too."""
    client = TestClient(Guard(application(folder, None), "127.0.0.1", "secret"), base_url=BASE)
    assert client.get("/", params={"token": "secret"}).status_code == 200
    return client


def test_a_policy_of_many_groups_is_checked_without_listing_them() -> None:
    most = policy.MOST_GROUPS
    about = {"name": "a", "kind": "mlp", "block": 0, "level": None, "groups": most, "kept": most, "density": 1.0}
    begin = time.perf_counter()
    for _ in range(100):
        policy.UnitPolicy.model_validate(about | {"kept_groups": f"0-{most - 1}"})
    assert time.perf_counter() - begin < 5  # to list them took a second each
    with pytest.raises(ValueError, match=f"names {most - 1} groups of {most}"):
        policy.UnitPolicy.model_validate(about | {"kept_groups": f"0-{most - 2}"})
    with pytest.raises(ValueError, match=r"kept_groups[^']*'5-3' is not ascending"):
        policy.UnitPolicy.model_validate(about | {"kept_groups": "5-3"})
