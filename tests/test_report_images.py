"""Words of image networks on the page and the terminal, and what fine-tuning gave."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune import display
from autoprune.comparing.results import table_of
from autoprune.config import SearchConfig
from autoprune.drawing.charts import Series, line_chart
from autoprune.errors import UserError
from autoprune.policy import to_json
from autoprune.recovery.result import read_finetuned, won_back
from autoprune.reports.page import write_report
from autoprune.space import SearchSpace
from autoprune.space_file import load_space, save_space, words_of_run
from autoprune.task_choice import built_in
from autoprune.testing.toys import counts, toy_space
from tests.conftest import Answer
from tests.test_images import NETWORK
from tests.test_report import NASTY, check, make_comparison, make_run, searched, sections

Cli = Callable[..., Answer]
OF_TEXT = re.compile(r"(?i)\b(tokens?|sequences?|perplexity|neurons?|heads?|text|groups)\b")
OF_IMAGES = re.compile(r"(?i)\b(images?|samples of|accuracy|channels?)\b")


def image_space(units: int = 9) -> SearchSpace:
    """The toy's units as convolutions."""
    toy = toy_space(units)
    made = [replace(unit, name=f"{u}.conv", kind="conv", block=u) for u, unit in enumerate(toy.units)]
    costs = {"params": [[unit.params(k) for k in counts(unit)] for unit in made]}
    return SearchSpace(made, costs, toy.budgets, words=built_in()["images"])


def make_image_run(path: Path, finished: bool = True, **settings: Any) -> Path:
    """A run of an image network as a search leaves it."""
    space = image_space()
    run = make_run(path, space, searched(space), finished, model="net.py:net", data="images.npz", **settings)
    if finished:
        result = json.loads((run / "result.json").read_text())
        for row, accuracy in zip(result["table"], (0.9125, 0.75, 0.875), strict=True):
            row["accuracy"] = accuracy
        (run / "result.json").write_text(json.dumps(result))
    return run


def recovered(run: Path, **changes: Any) -> Path:
    """What fine-tuning leaves in it."""
    record = {
        "tuning": {"epochs": 10, "lr": 0.05, "augment": True},
        "dense": {"ce": 0.25, "accuracy": 0.9125},
        "before": {"ce": 0.75, "accuracy": 0.8125},
        "after": {"ce": 0.5, "accuracy": 0.8925},
    }
    (run / "finetuned").mkdir(exist_ok=True)
    (run / "finetuned" / "result.json").write_text(json.dumps(record | changes))
    return run


def report(run: Path) -> str:
    page = write_report(run).read_text(encoding="utf-8")
    check(page)
    return page


def said(page: str) -> str:
    """All that a page says, tooltips and labels for screen readers too, but for its settings, which are all tasks'."""
    page = page[page.index("<body>") :]
    page = re.sub(r"<section><h2>Configuration</h2>.*?</section>", "", page, flags=re.DOTALL)
    labels = " ".join(re.findall(r'aria-label="(.*?)"', page))
    return unescape(f"{re.sub('<[^>]*>', ' ', page)} {labels}").replace("\N{NO-BREAK SPACE}", " ")


# -- the page of a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [True, False])
def test_a_page_on_images_speaks_of_images(tmp_path: Path, finished: bool) -> None:
    told = said(report(make_image_run(tmp_path / "run", finished)))
    assert not OF_TEXT.search(told), OF_TEXT.search(told)
    assert {"images scored", "nats per image", "% of channels kept", "channels kept"} <= set(_parts(told))
    if finished:
        assert {"MACs per image", "Images per second", "MACs/image", "images/s", "87.50 %"} <= set(_parts(told))
        assert "uniform 75.00 %, dense 91.25 %" in told
        assert "autoprune export" in told


@pytest.mark.parametrize("finished", [True, False])
def test_a_page_on_text_speaks_of_text(tmp_path: Path, finished: bool) -> None:
    told = said(report(make_run(tmp_path / "run", finished=finished)))
    assert not OF_IMAGES.search(told), OF_IMAGES.search(told)
    assert {"tokens scored", "% of groups kept"} <= set(_parts(told))
    assert ("autoprune export" in told) == finished


def _parts(told: str) -> list[str]:
    """Every run of up to five words."""
    words = re.split(r"[\s(),]+", told)
    return [" ".join(words[i : i + n]) for n in range(1, 6) for i in range(len(words))]


def test_losses_of_errors_are_shares(tmp_path: Path) -> None:
    assert "in share of wrong answers" in said(report(make_image_run(tmp_path / "run", loss="error")))


def test_accuracy_that_a_table_lacks_is_a_dash(tmp_path: Path) -> None:
    run = make_image_run(tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    for row in result["table"]:
        del row["accuracy"]
    (run / "result.json").write_text(json.dumps(result))
    assert "uniform –, dense –" in said(report(run))


def test_sensitivities_of_blocks_stand_in_their_order(tmp_path: Path) -> None:
    page = report(make_image_run(tmp_path / "run"))
    svg = next(one for one in re.findall(r"<svg.*?</svg>", page, re.DOTALL) if "Sensitivity of the conv units" in one)
    names = re.findall(r"<title>(\d)\.conv, (\d) of 4 channels kept", svg)
    assert names == [(str(block), str(kept)) for kept in (3, 2, 1, 0) for block in range(9)]
    assert re.findall(r"<text[^>]*>(\d)</text>", svg) == [str(block) for block in range(9)]


def test_references_are_named_where_lines_are_not() -> None:
    for y, anchor in (([0.2, 1.0], "start"), ([1.0, 0.2], "end")):
        svg = line_chart([Series("s", [1.0, 2.0], y)], "lines", "x", "y", references=[("uniform", 1.0)])
        assert re.search(rf'<text[^>]*text-anchor="{anchor}"[^>]*>uniform</text>', svg)


# -- fine-tuning -------------------------------------------------------------------------------------------------------


def test_fine_tuning_has_its_section(tmp_path: Path) -> None:
    run = make_image_run(tmp_path / "run")
    assert "Fine-tuning" not in sections(report(run))
    page = report(recovered(run, seconds=75.0))
    told = re.sub(r"\s+", " ", said(page))
    assert sections(page)[:3] == ["Validation", "Fine-tuning", "Search"]
    assert "dense 0.2500 91.25 % found 0.7500 81.25 % recovered 0.5000 89.25 %" in told
    assert "won back 80 % of the accuracy and 50 % of the cross-entropy. " in told
    assert "It took 1 min 15 s." in told
    assert "Settings: epochs 10, lr 0.05, augment yes." in told
    assert "Accuracy, fine-tuned 89.25 % found 81.25 %, dense 91.25 %" in told


def test_fine_tuning_of_text_shows_whatever_was_measured(tmp_path: Path) -> None:
    run = recovered(
        make_run(tmp_path / "run"),
        dense={"ce": 3.0, "kl": 0.0, "perplexity": 20.0855},
        before={"ce": 4.0, "kl": 1.0, "perplexity": None, "<b>own</b>": 1.5},
        after={"ce": 3.2, "kl": 0.25, "perplexity": 24.5325},
        tuning={NASTY: NASTY},
    )
    page = report(run)
    told = re.sub(r"\s+", " ", said(page))
    assert "cross-entropy loss (kl) perplexity <b>own</b>" in told
    assert "found 4.0000 1.0000 ∞ 1.5000" in told
    assert "recovered 3.2000 0.2500 24.53 –" in told
    assert "won back 80 % of the cross-entropy and 75 % of the loss (kl)." in told
    assert "Perplexity, fine-tuned 24.5 found ∞, dense 20.1" in told
    assert "<b>" not in page


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"tuning": {}, "dense": {"ce": "<b>"}}', "\udcff"])
def test_a_damaged_result_is_a_sentence(tmp_path: Path, cli: Cli, content: str) -> None:
    run = recovered(make_image_run(tmp_path / "run"))
    (run / "finetuned" / "result.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    page = report(run)
    assert "Fine-tuning" in sections(page)
    assert "result.json' is damaged (" in said(page)
    assert "autoprune finetune" in said(page)
    answer = cli("show", run)
    assert answer.status == 0
    assert "is damaged (" in answer.out.splitlines()[-1]


def test_show_tells_of_fine_tuning(tmp_path: Path, cli: Cli) -> None:
    run = make_image_run(tmp_path / "run")
    assert "Fine-tuning" not in cli("show", run).out
    answer = cli("show", recovered(run, seconds=190))
    assert re.search(r"recovered +0\.5000 +89\.25%", answer.out)
    assert answer.out.splitlines()[-1].endswith("It took 3 min 10 s.")
    assert "Channels kept of every unit" in answer.out
    assert "Fine-tuning" not in cli("show", run / "policy.json").out
    assert "units" in json.loads(cli("show", run, "--json").out)


def test_nothing_lost_is_nothing_won_back(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = recovered(tmp_path / "run", before={"ce": 0.25, "accuracy": 0.95}, after={"ce": 0.1})
    done = read_finetuned(run)
    assert done is not None
    assert won_back(done) is None
    run = recovered(tmp_path / "run", before={"ce": 0.5, "accuracy": 0.8125}, after={"ce": 0.625, "accuracy": 0.8625})
    done = read_finetuned(run)
    assert done is not None
    told = "Of what pruning lost, refit and fine-tuning won back 50% of the accuracy."
    assert won_back(done) == f"{told} They lost another 50% of the cross-entropy."
    assert read_finetuned(tmp_path) is None


# -- comparisons -------------------------------------------------------------------------------------------------------


def image_comparison(path: Path) -> Path:
    """A comparison of two agents on images; of the second there is no answer."""
    searches: list[dict[str, Any]] = []
    for seed in range(2):
        one = {"agent": "evolution", "seed": seed, "run": f"evolution-s{seed}", "loss": 0.5 + seed, "ce": 1.0}
        one |= {"perplexity": 2.7, "accuracy": 0.75 + 0.1 * seed, "params": 1e5, "macs": 2e6, "search_loss": 0.5}
        one |= {"search_tokens": 64, "tokens": 640, "evals": 10, "seconds": 3.0, "policy": "policy.json"}
        searches.append(one | {"curve": [[64, 0.3, 1.5], [640, 3.0, 0.5]]})
    searches.append({"agent": "tpe", "seed": 0, "run": "tpe-s0", "failed": "no answer"})
    reference = {"loss": 0.0, "ce": 0.1, "perplexity": 1.1, "accuracy": 0.925, "params": 2e5, "macs": 4e6}
    config = SearchConfig(model="net.py:net", max_tokens=640).model_dump()
    changes: dict[str, Any] = {"task": "images", "config": config}
    changes |= {
        "searches": searches,
        "table": table_of(searches, built_in()["images"]),
        "references": {"dense": reference},
    }
    return make_comparison(path, agents=["evolution", "tpe"], **changes)


def test_a_comparison_on_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = image_comparison(tmp_path / "cmp")
    told = said(report(run))
    assert not OF_TEXT.search(told), OF_TEXT.search(told)
    assert {"images scored", "MACs/image", "640 images a", "80.00 %", "85.00 %"} <= set(_parts(told))
    assert "accuracy 92.50 %, the same for all" in told
    display.print_comparison(json.loads((run / "league.json").read_text()))
    out = capsys.readouterr().out
    assert not OF_TEXT.search(out)
    assert re.search(r"evolution +2 +1\.0000 ± 0\.7071 +80\.00%", out)
    assert re.search(r"dense +0\.0000 +92\.50%", out)


def test_a_comparison_on_text_has_no_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_comparison(tmp_path / "cmp")
    assert not OF_IMAGES.search(said(report(run)))
    display.print_comparison(json.loads((run / "league.json").read_text()))
    out = capsys.readouterr().out
    assert not OF_IMAGES.search(out)
    assert "tokens" in out


# -- the terminal ------------------------------------------------------------------------------------------------------


# -- where it is written -----------------------------------------------------------------------------------------------


def test_a_space_says_what_is_read(tmp_path: Path) -> None:
    space, file = image_space(), tmp_path / "space.json"
    assert words_of_run(tmp_path) is None
    save_space(file, space)
    assert load_space(file)[0].words == words_of_run(tmp_path) == space.rebudgeted(space.budgets).words
    record = json.loads(file.read_text())
    assert record["task"] == "images"
    before = {key: value for key, value in record.items() if key != "words"}
    file.write_text(to_json(before))
    assert load_space(file)[0].words == words_of_run(tmp_path) == built_in()["images"]
    file.write_text(to_json({key: value for key, value in before.items() if key != "task"}))
    assert load_space(file)[0].words == words_of_run(tmp_path) == built_in()["text"]
    for wrong in ("sound", ["images"], None):
        file.write_text(to_json(record | {"task": wrong}))
        with pytest.raises(UserError, match=r"space\.json' is damaged"):
            load_space(file)
        assert words_of_run(tmp_path) is None
    file.write_text("{")
    assert words_of_run(tmp_path) is None


def test_commands_on_images_speak_of_images(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a search to a report, as a user sees it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("net.py").write_text(NETWORK)
    images = rng.integers(0, 256, (200, 12, 12, 3), dtype=np.uint8)
    np.savez("images.npz", images=images, labels=rng.integers(0, 4, 200))
    sizes = [f"{name}_sequences=4" for name in ("reconstruction", "search", "validation")]
    common = ("--model", "net.py:net", "--data", "images.npz", "--max-evals", "6", "sequence_length=8", *sizes)
    answers = [cli("search", *common, "--out", "run"), cli("compare", *common, *_two, "--out", "cmp")]
    answers += [cli("show", "run"), cli("report", "run"), cli("report", "cmp")]
    assert [answer.status for answer in answers] == [0] * 5, answers
    for answer in answers:
        assert not OF_TEXT.search(answer.out + answer.err), answer
    for page in ("run", "cmp"):
        assert not OF_TEXT.search(said(Path(page, "report.html").read_text())), page
    words = words_of_run(Path("run"))
    assert words is not None
    assert words.task == json.loads(Path("cmp/league.json").read_text())["task"] == "images"
    table = json.loads(Path("run/result.json").read_text())["table"]
    validation = json.loads(Path("run/policy.json").read_text())["losses"]["validation"]
    assert validation["best"]["accuracy"] == table[-1]["accuracy"]
    worth = json.loads(cli("evaluate", "run", "--json").out)
    assert worth["images"] == 32
    assert worth["images_per_second"] > 0
    assert not {"tokens", "tokens_per_second", "perplexity"} & set(worth)


_two = ("--agents", "random,uniform", "--seeds", "1")


def test_families_without_model_types_end_in_a_sentence(cli: Cli) -> None:
    assert "Model types: ." not in cli("list", "families").out
