"""The live page in a real browser: a search begins, its curve grows, it is stopped, goes on with more, and ends."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_resume import command, outcome, wait_for_scores
from tests.watching_pages import watching

pytest.importorskip("uvicorn", reason="needs autoprune[watch]")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECOND = 1000  # milliseconds
MORE = 420
POLICIES = "parseInt(document.querySelector('.facts').innerText.match(/evaluations\\s+(\\d+)/i)[1])"
PICTURES = os.environ.get("AUTOPRUNE_PICTURES")
"""A folder for pictures of the page; by default none are kept."""


@pytest.fixture
def tab() -> Iterator[Any]:
    """A page of a headless Chromium that must not complain, and asks nobody but this machine."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1366, "height": 900})
        complaints, asked = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        yield page
        if PICTURES:
            page.screenshot(path=str(Path(PICTURES) / "end.png"), full_page=True)
        browser.close()
    own = [text for text in complaints if not text.startswith("Failed to load resource")]  # once the server has ended
    assert own == []
    assert all(url.startswith("http://127.0.0.1:") for url in asked)


def scored(tab: Any) -> int:
    """The number of policies that the page shows."""
    return int(tab.locator("dt:text('Evaluations') + dd").inner_text().split()[0].replace(",", ""))


def path_of_curve(tab: Any) -> str:
    return str(tab.locator("#part-curve svg path.line").first.get_attribute("d"))


def test_a_search_is_watched_stopped_resumed_and_ends(quick: dict[str, Any], tmp_path: Path, tab: Any) -> None:
    run = tmp_path / "runs" / "live"
    settings = [f"{key}={json.dumps(value)}" for key, value in (quick | {"seed": 4}).items() if key != "max_evals"]
    begun = command("search", *settings, "max_evals=400", "--out", str(run), pause=0.06)
    with (
        subprocess.Popen(begun, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
        watching_after(run, process) as address,
    ):
        tab.goto(address)
        assert "token" not in tab.url
        tab.get_by_role("link", name="live").click()
        tab.locator(".state.searching").wait_for()
        tab.locator("#part-curve svg").first.wait_for()

        before, curve = scored(tab), path_of_curve(tab)
        tab.wait_for_function(f"() => {POLICIES} > {before + 5}")
        assert path_of_curve(tab) != curve
        assert tab.locator("#part-units svg rect.part").count() == 8, "kept of every unit"
        assert tab.get_by_text("Time left").is_visible()
        if PICTURES:
            tab.screenshot(path=str(Path(PICTURES) / "searching.png"), full_page=True)

        assert tab.get_by_role("button", name="Resume").is_disabled()
        tab.get_by_role("button", name="Stop").focus()
        tab.keyboard.press("Enter")  # as a person without a mouse
        tab.locator(".state.stopped").wait_for(timeout=60 * SECOND)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        stopped = json.loads((run / "result.json").read_text())
        assert stopped["interrupted"] is True
        assert stopped["spent"]["evals"] < 400
        if PICTURES:
            tab.screenshot(path=str(Path(PICTURES) / "stopped.png"), full_page=True)

        tab.get_by_role("spinbutton", name="evaluations").fill("3")
        tab.get_by_role("button", name="Resume").click()
        tab.get_by_text("max_evals=3 is lower").wait_for(timeout=60 * SECOND)
        tab.get_by_role("spinbutton", name="evaluations").fill(str(MORE))
        tab.get_by_role("button", name="Resume").click()
        tab.locator(".state.finished").wait_for(timeout=120 * SECOND)
        assert scored(tab) == MORE
        found = json.loads((run / "policy.json").read_text())["losses"]["search"]
        assert tab.locator("dt:text('Best loss') + dd").inner_text().startswith(f"{found:.4f}")
        assert tab.locator("#part-result table").is_visible()

    whole = command("search", *settings, f"max_evals={MORE}", "--out", str(tmp_path / "whole"))
    subprocess.run(whole, check=True, capture_output=True)
    assert outcome(run) == outcome(tmp_path / "whole")


def watching_after(run: Path, process: "subprocess.Popen[bytes]") -> Any:
    """The address of a page on the folder of a run that has begun to score."""
    wait_for_scores(run, 3, process)
    return watching(run.parent, "--control")


def test_dark_narrow_and_without_the_server(finished_run: Path, tmp_path: Path, tab: Any) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "runs" / "run"))
    tab.emulate_media(color_scheme="dark")
    tab.set_viewport_size({"width": 400, "height": 800})
    with watching(run.parent) as address:
        tab.goto(address)
        tab.get_by_role("link", name="run", exact=True).click()
        tab.locator(".state.finished").wait_for()
        assert tab.locator("#control").is_hidden(), "only with --control"
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, background[4:-1].split(","))) < 150
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        tab.go_back()
        tab.get_by_role("heading", name="Runs").first.wait_for()
        tab.go_forward()
        tab.locator(".state.finished").wait_for()
        if PICTURES:
            tab.screenshot(path=str(Path(PICTURES) / "narrow.png"), full_page=True)
        shutil.rmtree(run)
        tab.get_by_text("there is no such run").wait_for(timeout=30 * SECOND)
