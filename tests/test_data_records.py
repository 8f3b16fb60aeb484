"""Columns, chats, folders, splits and data sets: what is read of records, what is told, and what is refused."""

import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoprune.data import hub
from autoprune.data.source import Source
from autoprune.data.text import read_texts
from autoprune.data_names import Wanted
from autoprune.errors import UserError

ROWS = [{"id": n, "title": f"title {n}", "story": f"a story of some length, number {n}"} for n in range(20)]


def lines(path: Path, rows: list[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def read(name: str, column: str | None = None, split: str | None = None) -> Source:
    (source,) = read_texts(Wanted(name, column, split)).sources
    return source


def refused(name: str, *seen: str, column: str | None = None, split: str | None = None) -> None:
    with pytest.raises(UserError) as error:
        read(name, column, split)
    assert [part for part in seen if part not in str(error.value)] == [], str(error.value)


# -- columns ---------------------------------------------------------------------------------------------------------


def test_the_column_is_guessed_and_told(tmp_path: Path) -> None:
    source = read(lines(tmp_path / "a.jsonl", ROWS))
    assert (source.column, source.texts[3]) == ("story", ROWS[3]["story"])
    (notice,) = source.notices
    assert "JSON lines, texts from the column 'story'. Other columns: id, title; data_column=NAME chooses one" in notice
    usual = [row | {"text": "short"} for row in ROWS]
    assert read(lines(tmp_path / "b.jsonl", usual)).column == "text"


def test_the_column_is_chosen(tmp_path: Path) -> None:
    source = read(lines(tmp_path / "a.jsonl", ROWS), "title")
    assert (source.column, source.texts[3], source.notices) == ("title", "title 3", ())


def test_wrong_columns(tmp_path: Path) -> None:
    name = lines(tmp_path / "a.jsonl", ROWS)
    refused(name, "no column 'stroy'", "Did you mean 'story'?", "id (numbers), title (texts)", column="stroy")
    refused(name, "the column 'id'", "holds numbers, no texts", column="id")
    (tmp_path / "t.txt").write_text("plain text, without columns")
    refused(str(tmp_path / "t.txt"), "data_column='story' chooses nothing", column="story")


def test_bad_records(tmp_path: Path) -> None:
    refused(lines(tmp_path / "a.jsonl", [{"text": None}, {"text": None}]), "no column of texts", "text (nothing)")
    refused(lines(tmp_path / "n.jsonl", [{"text": " "}, {"text": ""}]), "no record", "has a text in the column 'text'")
    mixed = [{"text": "one"}] * 60 + [{"text": 3}]
    refused(lines(tmp_path / "b.jsonl", mixed), "record 61", "holds 3 (numbers) in the column 'text'")
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\n{"text": "tw')
    refused(str(tmp_path / "c.jsonl"), "line 2 of", "cannot be read as JSON lines")
    (tmp_path / "d.json").write_text("{}")
    refused(str(tmp_path / "d.json"), "no column of texts. It has: no columns")
    (tmp_path / "e.csv").write_text("text,text\na b,c d\n")
    refused(str(tmp_path / "e.csv"), "names a column twice")


def test_records_without_a_text_are_left_out_and_counted(tmp_path: Path) -> None:
    source = read(lines(tmp_path / "a.jsonl", [*ROWS, {"story": "  "}, {"id": 3}]), "story")
    assert (len(source.texts), source.notices) == (20, (f"2 of 22 records of '{tmp_path / 'a.jsonl'}' have no text and "
                                                        "are left out.",))  # fmt: skip


def test_long_cells_of_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"id,text\n1,{'x ' * 200_000}\n2,short\n")
    assert [len(text) for text in read(str(tmp_path / "a.csv")).texts] == [400_000, 5]


@pytest.mark.parametrize("size", [40_000_000_000])
def test_a_file_that_is_too_large(tmp_path: Path, size: int) -> None:
    with (tmp_path / "large.txt").open("wb") as file:
        file.write(b"text")
        file.truncate(size)  # which takes no room on the disk
    refused(str(tmp_path / "large.txt"), "40,000,000,000 bytes", "at most", "give a part of it")


def test_nothing_there_and_near_misses(tmp_path: Path) -> None:
    lines(tmp_path / "stories.jsonl", ROWS)
    refused(str(tmp_path / "storys.jsonl"), "no calibration text at", "Did you mean", "stories.jsonl", "--data takes")


# -- columnar files and folders --------------------------------------------------------------------------------------


def test_parquet_and_arrow(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    chats = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": f"ho {n}"}] for n in range(20)]
    table = pa.table({"story": [row["story"] for row in ROWS], "id": list(range(20)), "raw": [b"\0"] * 20})
    parquet.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, tmp_path / "a.feather")
    parquet.write_table(pa.table({"messages": chats}), tmp_path / "chats.parquet")
    for name in ("a.parquet", "a.feather"):
        source = read(str(tmp_path / name))
        assert (source.column, list(source.texts)) == ("story", [row["story"] for row in ROWS])
    assert read(str(tmp_path / "chats.parquet")).chats == chats
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    refused(str(tmp_path / "bad.parquet"), "bad.parquet", "cannot be read")
    refused(str(tmp_path / "a.parquet"), "no column 'stori'", "Did you mean 'story'", column="stori")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(str(tmp_path / "a.parquet"), "needs pyarrow: pip install 'autoprune[data]'")


def test_what_datasets_saves(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    own = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": own, "test": own.select(range(4))}).save_to_disk(tmp_path / "both")
    own.save_to_disk(tmp_path / "one")
    assert len(read(str(tmp_path / "one")).texts) == len(read(str(tmp_path / "both")).texts) == 20
    assert len(read(str(tmp_path / "both"), split="test").texts) == len(read(f"{tmp_path / 'both'}:test").texts) == 4
    refused(str(tmp_path / "both"), "no split 'tset'", "Did you mean 'test'?", split="tset")
    refused(f"{tmp_path / 'one'}:test", "is one split: leave 'test'")


def test_a_folder_of_files(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{n}.txt").write_text(f"document {n}")
        lines(tmp_path / "records" / f"train-{n}.jsonl", ROWS)
    lines(tmp_path / "records" / "test.jsonl", ROWS[:5])
    (tmp_path / "records" / "README.md").write_text("about")
    assert list(read(str(tmp_path / "texts")).texts) == [f"document {n}" for n in range(3)]
    source = read(str(tmp_path / "records"))
    assert (len(source.texts), source.split, source.column) == (60, "train", "story")
    assert len(read(str(tmp_path / "records"), split="test").texts) == 5
    refused(str(tmp_path / "texts"), "has no split 'test'", split="test")
    (tmp_path / "records" / "more.csv").write_text("a,b\n")
    refused(str(tmp_path / "records"), "files of several forms (*.jsonl, *.csv)")


def test_splits_of_what_has_none(tmp_path: Path) -> None:
    name = lines(tmp_path / "a.jsonl", ROWS)
    refused(name, "data_split='test' chooses nothing", split="test")
    refused(f"{name}:test", "is a file and has no splits")


# -- chats -----------------------------------------------------------------------------------------------------------


def test_forms_of_chats(tmp_path: Path) -> None:
    expected = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]]
    share = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    for n, row in enumerate(({"messages": expected[0], "text": "not this"}, {"conversations": share}, expected[0])):
        assert read(lines(tmp_path / f"{n}.jsonl", [row])).chats == expected
    assert read(str(tmp_path / "0.jsonl"), "text").texts == ["not this"]


# -- the hub ---------------------------------------------------------------------------------------------------------


def test_names_of_the_hub() -> None:
    assert [hub.may_be(name, None) for name in ("a:b", "own/set:train", "own/set/small:train[:5]")] == [True] * 3
    assert [hub.may_be(name, None) for name in ("a", "own/set", "./a:b", "a b:c", "a.jsonl:x", "a/b/c/d:e")] == [
        False
    ] * 6
    assert hub.may_be("own/set", "train")


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[Any] = []

    def load(*args: Any, **settings: Any) -> Any:
        asked.append((*args, settings))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = read("own/set/small:test")
    assert asked == [("own/set", "small", {"split": "test"})]
    assert (source.column, source.split, len(source.texts)) == ("story", "test", 20)


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    pytest.importorskip("datasets")
    from huggingface_hub import HfApi, constants

    def unreachable(*_: Any, **__: Any) -> None:
        time.sleep(60)

    monkeypatch.setattr(hub, "SECONDS", 0.05)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    before = time.monotonic()
    refused("nobody/nothing:train", "'nobody/nothing:train'", "hub")
    assert time.monotonic() - before < 10


def test_the_hub_without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("nobody/nothing:train", "need the package datasets: pip install 'autoprune[data]'")


# -- readers of one's own --------------------------------------------------------------------------------------------

OWN = """
from autoprune.data.reader import Reader

class Shout(Reader):
    \"\"\"Texts in capitals.\"\"\"

    def recognises(self, file):
        return file.suffix == ".shout"

    def read(self, file):
        return file.text.upper()
"""


def test_a_reader_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]) -> None:
    from autoprune import registry

    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "a.shout").write_text("{quiet}")
    own = {"shout": f"{tmp_path}/own.py:Shout"} | registry.PARTS["readers"]
    monkeypatch.setitem(registry.PARTS, "readers", own)
    assert read("a.shout").texts == ["{QUIET}"]


# -- links and what is packed twice ----------------------------------------------------------------------------------


def test_a_link_back_into_the_folder_gives_nothing_twice(tmp_path: Path) -> None:
    lines(tmp_path / "data" / "a.jsonl", ROWS)
    (tmp_path / "data" / "self").symlink_to(".")
    assert len(read(str(tmp_path / "data")).texts) == len(ROWS)


def test_a_link_that_leads_nowhere_is_not_suggested_for_itself(tmp_path: Path) -> None:
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    refused(str(tmp_path / "loop.txt"), "is a symbolic link that leads nowhere")


def test_what_is_packed_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(gzip.compress(b'{"text": "a"}')))
    refused(str(tmp_path / "a.jsonl.gz"), "is compressed with gzip twice")
