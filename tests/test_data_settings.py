"""Data in settings: options, YAML, what runs keep, and the sentences of the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import autoprune
from autoprune.cards.metadata import data_name
from autoprune.cards.repeat import search_command
from autoprune.config import SearchConfig, load_config
from autoprune.data.live import named
from autoprune.data.python_docs import held_out_text

Refused = Callable[..., str]


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """Records with two columns of texts, in the folder of the command line."""
    rows = [{"title": f"story {n}", "text": f"a longer story of number {n}, which goes on"} for n in range(200)]
    (tmp_path / "stories.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "stories.jsonl"


@pytest.fixture
def cheap(quick: dict[str, Any]) -> list[str]:
    """Arguments of a cheap search without its data."""
    settings = quick | {"max_evals": 3, "agent": "random"}
    return [f"{key}={json.dumps(value)}" for key, value in settings.items() if key != "data"]


def test_a_search_on_several_with_weights(
    cli: Callable[..., Any], cheap: list[str], stories: Path, text_file: str, tmp_path: Path
) -> None:
    shutil.copy(text_file, tmp_path / "words.txt")
    arguments = ("--data", "stories.jsonl=3", "--data", "words.txt", "--data-column", "text", "--out", "run")
    done = cli("search", *cheap, *arguments)
    assert done.status == 0, done.err
    assert "the sequences are" in " ".join(done.err.split())
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (saved["data"], saved["data_column"]) == ({"stories.jsonl": 3.0, "words.txt": 1.0}, "text")
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"data": {"stories.jsonl": 3, "words.txt": 1}}))
    assert load_config(tmp_path / "settings.yaml").data == saved["data"]
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"data": ["stories.jsonl", "words.txt"]}))
    assert load_config(tmp_path / "settings.yaml").data == ["stories.jsonl", "words.txt"]
    evaluated = cli(
        "evaluate", "run", "--data", "stories.jsonl", "--data-column", "title", "--max-sequences", 2, "--json"
    )
    assert json.loads(evaluated.out)["tokens"] == 64
    assert cli("finetune", "run", "--max-steps", 1).status == 0
    assert cli("resume", "run").status == 0


def test_a_run_whose_column_is_another(quick: dict[str, Any], stories: Path, tmp_path: Path) -> None:
    """What the splits were made of is in their hash: a run that is changed by hand is not evaluated on other data."""
    own = quick | {"max_evals": 3, "agent": "random", "data": stories, "data_column": "text"}
    run = autoprune.search(**own, out=tmp_path / "run").path
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("data_column: text", "data_column: title"))
    with pytest.raises(autoprune.UserError, match="is not the one that was searched on"):
        autoprune.evaluate(run)


def test_a_run_without_its_kept_data(quick: dict[str, Any], tmp_path: Path) -> None:
    texts = [f"a text that only this test has, number {n}" for n in range(100)]
    own = quick | {"max_evals": 3, "agent": "random", "data": texts}
    autoprune.search(**own, out=tmp_path / "run")
    kept = Path(str(load_config(tmp_path / "run/config.yaml").data))
    kept.unlink()
    with pytest.raises(autoprune.UserError, match=r"kept data that were given in Python.* Give the same"):
        autoprune.resume(tmp_path / "run")
    assert named(texts) == str(kept)
    autoprune.resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (("--data", "stories.jsonl", "--data", "stories.jsonl"), ("'stories.jsonl' twice",)),
        (("--data", "stories.jsonl=0", "--data", "b.txt"), ("the weight of 'stories.jsonl' is 0",)),
        (("--data", "stories.jsonl", "--data-column", "txet"), ("no column 'txet'", "Did you mean 'text'")),
        (("--data", "stories.jsonl", "--data-split", "test"), ("data_split='test' chooses nothing",)),
        (("--data", "storys.jsonl"), ("'storys.jsonl'", "Did you mean 'stories.jsonl'")),
        (("--data", "."), ("no column",)),
        (("data=3",), ("data takes a name",)),
        (("data={stories.jsonl: many}",), ("the weight of 'stories.jsonl' is 'many'",)),
        (("data_column=3", "--data", "stories.jsonl"), ("data_column",)),
    ],
)
def test_mistakes_in_data(
    refused: Refused, stories: Path, arguments: tuple[str, ...], seen: tuple[str, ...], tmp_path: Path
) -> None:
    if arguments == ("--data", "."):
        stories.write_text('{"n": 1}\n')
    refused("search", *arguments, "--out", "run", seen=seen)
    assert not (tmp_path / "run").exists()


def test_images_are_of_one_place(refused: Refused) -> None:
    refused("search", "--model", "tiny-cnn", "--data", "a.npz", "--data", "b.npz", seen=("images are read from one",))
    refused("search", "--model", "tiny-cnn", "--data-column", "x", seen=("data_column='x' is of data sets", "digits"))


def test_cards_and_commands_name_data_as_options_do(tmp_path: Path) -> None:
    several = SearchConfig(data={"a.txt": 1.0, "b.jsonl": 2.5})
    assert "--data a.txt=1 --data b.jsonl=2.5" in search_command(several)
    words = several.chosen_task().words
    assert data_name(several, words) == "a.txt, b.jsonl"
    assert data_name(SearchConfig(data=named([held_out_text()[:500]])), words) == "data given live"


def test_what_a_dense_default_is(quick: dict[str, Any]) -> None:
    assert load_config(None, {}).data is None
    assert load_config(None, {"data": Path("text.txt")}).data == "text.txt"
