"""Reads calibration text: decodes it by its byte order mark, and refuses tables and records.

Braces, field names and separators would be wrong calibration data for a language model. The kind of a file is detected
from its content, because file names say little.
"""

import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Sequence

from autoprune.errors import UserError

MARKS = (  # the longer ones first: that of UTF-32 begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
MAGIC = {
    b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file", b"\x1f\x8b": "compressed (gzip)", b"PK\x03\x04":
    "an archive (zip, or an office document)", b"%PDF": "a PDF", b"BZh": "compressed (bzip2)", b"\xfd7zXZ":
    "compressed (xz)", b"\x28\xb5\x2f\xfd": "compressed (zstd)", b"SQLite format 3": "a SQLite database",
    b"\x93NUMPY": "an array of NumPy", b"GGUF": "a GGUF model", b"\x89PNG": "an image", b"\xff\xd8\xff": "an image",
}  # fmt: skip
ROWS = 50  # from the start that are looked at
ENOUGH = 5  # rows that make a table of two or more columns
SEPARATORS = {",": "commas (CSV)", "\t": "tabs (TSV)", ";": "semicolons (CSV)", "|": "bars (CSV)"}


def plain_text(raw: bytes, path: str) -> str:
    """The text of a file, without byte order marks and with `\\n` at the end of lines.

    Raises:
        UserError: it is no text in UTF-8, UTF-16 or UTF-32, or the text is a table, JSON or JSON lines.
    """
    for magic, what in MAGIC.items():
        if raw.startswith(magic):
            raise UserError(f"'{path}' is {what} and no plain text: {_way_out('')}")
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), "utf-8")
    maybe = " It may be UTF-16 without a byte order mark." if b"\0" in raw[:ROWS] else ""
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        told = f"'{path}' is no {encoding.removesuffix('-sig').upper()} text ({where}): convert it to UTF-8.{maybe}"
        raise UserError(told) from error
    if "\0" in text:
        raise UserError(f"'{path}' is no text: it holds a zero byte at character {text.index(chr(0))}.{maybe}")
    text = re.sub("^\ufeff+", "", text.replace("\r\n", "\n").replace("\r", "\n"), flags=re.MULTILINE)
    records = _records(text)
    if records:
        raise UserError(f"'{path}' is {records}")
    return text


def _records(text: str) -> str | None:
    """What a text is that holds texts in fields, and the way out; None for plain text."""
    lines = list(itertools.islice((line for line in io.StringIO(text) if line.strip()), ROWS))
    if not lines:
        return None
    fields = _json_lines(lines)
    if fields is not None:
        return f"JSON lines, and no plain text: {_way_out(fields)}"
    if lines[0].lstrip()[:1] in ("{", "[") and _is_json(text):
        return f"JSON, and no plain text: {_way_out('')}"
    if len(lines) > 2 and all(line.lstrip().startswith("|") for line in lines) and set(lines[1]) <= set("|:- \n"):
        return f"a table in Markdown, and no plain text: {_way_out('')}"
    for separator, what in SEPARATORS.items():
        columns = _columns(text, separator)
        if columns:
            return f"a table, columns ({', '.join(columns)[:60]}) between {what}, and no plain text: {_way_out('')}"
    return None


def _way_out(field: str) -> str:
    first = f", as by `jq -r .{field}`" if field else ""
    return f"--data takes the text itself. Write what is to be read to a text file{first}, and give that."


def _json_lines(lines: Sequence[str]) -> str | None:
    """The field of objects that is text, "" if none is known; None where the lines are no JSON objects or arrays."""
    try:
        rows = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(row, (dict, list)) for row in rows):
        return None
    first = rows[0] if isinstance(rows[0], dict) else {}
    texts = {key: len(value) for key, value in first.items() if isinstance(value, str) and key.isidentifier()}
    return max(texts, key=texts.__getitem__, default="")


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


def _columns(text: str, separator: str) -> list[str] | None:
    """Names of a table's columns: what its first row holds; None for what is no table.

    Of prose, lines that happen to have as many commas each are few, and a space follows a comma.
    """
    try:
        reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
        rows = list(itertools.islice((row for row in reader if row), ROWS))
    except csv.Error:
        return None
    width = len(rows[0]) if rows else 0
    if len(rows) < ENOUGH or any(len(row) != width for row in rows):
        return None
    if width == 1:  # a header, and texts between quotation marks
        quoted = sum(line.startswith('"') for line in itertools.islice(io.StringIO(text), 1, ROWS))
        return rows[0] if rows[0][0].isidentifier() and quoted >= len(rows) - 1 else None
    spaced = sum(cell.startswith(" ") for row in rows for cell in row[1:])
    return None if separator in ",;" and width == 2 and spaced > len(rows) / 2 else rows[0]
