"""The form of a file is found by its content: plain text is read as it is, records are read by their columns."""

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune.data.python_docs import held_out_text
from autoprune.data.text import read_texts
from autoprune.errors import UserError
from tests.conftest import WORDS


def read_text(path: str) -> str:
    """The only text of a file."""
    (source,) = read_texts(path).sources
    (text,) = source.texts
    return text


TEXT = "Ein kurzer Text, mit Komma; über Bäume\nund eine zweite Zeile.\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.txt").write_bytes(TEXT.encode(encoding))
    assert read_text(str(tmp_path / "t.txt")) == TEXT


def test_big_endian_and_marks_of_files_put_together(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(b"\xfe\xff" + TEXT.encode("utf-16-be"))
    assert read_text(str(tmp_path / "big.txt")) == TEXT
    (tmp_path / "two.txt").write_bytes((TEXT.replace("\n", "\r\n").encode("utf-8-sig")) * 2)
    assert read_text(str(tmp_path / "two.txt")) == TEXT * 2


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 30))) for _ in range(count)]


def csv_of(delimiter: str, count: int = 200) -> str:
    import csv

    out = io.StringIO()
    rows = csv.writer(out, delimiter=delimiter)
    rows.writerow(["id", "text"])
    rows.writerows([n, f'{one}, said "he"{delimiter}\nand left'] for n, one in enumerate(sentences(count)))
    return out.getvalue()


RECORDS: dict[str, tuple[str, str, list[str]]] = {
    "lines": ("\n".join(json.dumps({"id": n, "text": s}) for n, s in enumerate(sentences(90))), "text", sentences(90)),
    "one line": (json.dumps({"text": "only one"}) + "\n", "text", ["only one"]),
    "blank lines between": ("\n\n".join(json.dumps({"content": s}) for s in sentences(9)), "content", sentences(9)),
    "a document": (json.dumps([{"text": s} for s in sentences(50)], indent=2), "text", sentences(50)),
    "a document in one line": (json.dumps([{"text": s} for s in sentences(50)]), "text", sentences(50)),
    "a list in an object": (json.dumps({"version": 1, "data": [{"body": s} for s in sentences(9)]}, indent=1), "body",
                            sentences(9)),
    "texts in lines": ("\n".join(json.dumps(s) for s in ["[x]", *sentences(9)]), "text", ["[x]", *sentences(9)]),
    "a list of texts": (json.dumps(sentences(9)), "text", sentences(9)),
    "long lines": ("\n".join(json.dumps({"text": " ".join(sentences(900))}) for _ in range(5)), "text",
                   [" ".join(sentences(900))] * 5),
    "csv": (csv_of(","), "text", [f'{s}, said "he",\nand left' for s in sentences(200)]),
    "csv, small": (csv_of(",", 5), "text", [f'{s}, said "he",\nand left' for s in sentences(5)]),
    "tsv": (csv_of("\t"), "text", [f'{s}, said "he"\t\nand left' for s in sentences(200)]),
    "semicolons": (csv_of(";"), "text", [f'{s}, said "he";\nand left' for s in sentences(200)]),
    "one column": ("text\n" + "\n".join(f'"{s}, and on"' for s in sentences(20)), "text",
                   [f"{s}, and on" for s in sentences(20)]),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "json", "txt.gz"])
def test_records_are_read_by_their_content(tmp_path: Path, name: str, suffix: str) -> None:
    text, column, expected = RECORDS[name]
    if name == "texts in lines" and suffix in ("txt", "csv", "txt.gz"):  # quoted lines may be plain text
        return
    raw = text.encode("utf-8-sig")
    (tmp_path / f"t.{suffix}").write_bytes(gzip.compress(raw) if suffix.endswith("gz") else raw)
    if suffix in ("jsonl", "json") and not text.lstrip().startswith(("{", "[", '"')):
        with pytest.raises(UserError, match="cannot be read as JSON"):
            read_texts(str(tmp_path / f"t.{suffix}"))
        return
    (source,) = read_texts(str(tmp_path / f"t.{suffix}")).sources
    assert source.column == column
    assert list(source.texts) == expected


REFUSED: dict[str, tuple[str, str]] = {
    "lists": ("\n".join(json.dumps([n, s]) for n, s in enumerate(sentences(9))), "without names of columns"),
    "several kinds": ('{"text": "a b c"}\n["a", "b"]\n', "records of several kinds"),
    "numbers": (
        "a,b,c\n" + "\n".join(f"{n},{n * n},{n % 7}" for n in range(40)),
        "no column of texts. It has: a (num",
    ),
    "markdown": ("| a | b |\n|---|:-:|\n" + "\n".join(f"| {n} | x |" for n in range(20)), "Markdown"),
    "ragged": (csv_of(",") + "1,2,3\n", "it has 3 cells, and the first row names 2 columns"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_records_without_texts_are_refused(tmp_path: Path, name: str) -> None:
    text, seen = REFUSED[name]
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(UserError) as raised:
        read_texts(str(tmp_path / "t.txt"))
    assert seen in str(raised.value)


PLAIN: dict[str, Callable[[], str]] = {
    "documentation": held_out_text,
    "this file": Path(__file__).read_text,
    "prose with a comma a line": lambda: "\n".join(f"{a}, {b}" for a, b in zip(sentences(40), sentences(40, 1))),  # noqa: B905
    "lines": lambda: "\n".join(sentences(40)),
    "one line": lambda: " ".join(sentences(400)),
    "brackets": lambda: "[1] A note.\n[2] Another.\n" * 10,
    "a list of numbers": lambda: "\n".join(map(str, range(100))),
    "markdown with a table": lambda: "# Title\n\nSome text.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nMore text.\n" * 3,
    "code": lambda: "def f(a, b):\n    return {a: b}\n\n\n" * 20,
    "speech": lambda: "\n".join(f'"{s}."' for s in sentences(20)),
    "an object in prose": lambda: '{"a": 1}\nis how JSON is written, they say.\n' * 5,
    "verses": lambda: "\n".join(f"{s},\nand {s}." for s in sentences(20)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_text_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    text = PLAIN[name]()
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert read_text(str(tmp_path / "t.csv")) == text


def test_lines_with_as_many_commas_each_are_a_text(tmp_path: Path) -> None:
    text = "A man of the town went out, saw the sea, and came back.\n" * 20
    (tmp_path / "t.txt").write_text(text)
    assert read_text(str(tmp_path / "t.txt")) == text


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (b"PAR1\0\0", "cannot be read"),
        (gzip.compress(b"text", mtime=0)[:-9], "cannot be read"),
        (b"PK\x03\x04rest", "zip"),
        (b"%PDF-1.7 text", "a PDF"),
        (TEXT.encode("utf-16-le"), "byte order mark"),
        (TEXT.encode("latin-1"), "no UTF-8 text"),
        (b"\xff\xfe" + b"a", "no UTF-16 text"),
        (b"\xef\xbb\xbf \n", "is empty"),
    ],
)
def test_what_is_no_text(tmp_path: Path, raw: bytes, seen: str) -> None:
    (tmp_path / "t.txt").write_bytes(raw)
    with pytest.raises(UserError, match=seen):
        read_text(str(tmp_path / "t.txt"))


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder without texts.* It is empty"):
        read_text(str(tmp_path))
