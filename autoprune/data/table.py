"""Tables: columns between commas, semicolons, tabs or bars, named in the first row (`.csv`, `.tsv`)."""

import csv
import io
import itertools
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from autoprune.data.file import WAY_OUT, File
from autoprune.data.reader import Reader
from autoprune.data.records import SAMPLES, Records
from autoprune.errors import UserError

ROWS = 50  # from the start that are looked at
ENOUGH = 5  # rows that make a table of two or more columns
SEPARATORS = {",": "CSV", "\t": "TSV", ";": "CSV (semicolons)", "|": "CSV (bars)"}
SUFFIXES = (".csv", ".tsv")
NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")


class Table(Reader):
    """Recognised by as many cells in each of the first rows; of a `.csv` or `.tsv`, by a row of names."""

    def recognises(self, file: File) -> bool:
        """By content, and by name where there are few rows."""
        return _is_markdown(file.text) or _separator(file) is not None

    def read(self, file: File) -> Records:
        """A record for each row behind the first."""
        if _is_markdown(file.text):
            raise UserError(f"'{file.called}' is a table in Markdown, and no text: {WAY_OUT}.")
        separator = _separator(file)
        assert separator is not None
        rows: list[list[str]] = []
        with _long_cells():
            reader = csv.reader(io.StringIO(file.text), delimiter=separator, strict=True)
            try:
                for row in reader:
                    if rows and row and len(row) != len(rows[0]):
                        raise csv.Error(f"it has {len(row)} cells, and the first row names {len(rows[0])} columns")
                    rows += [row] if row else []
            except csv.Error as error:
                told = f"the row that ends at line {reader.line_num} of '{file.called}' cannot be read: {error}."
                raise UserError(told) from error
        return _records(SEPARATORS[separator], rows, file.called)


def _records(form: str, rows: list[list[str]], called: str) -> Records:
    names = [name.strip() or f"column_{i}" for i, name in enumerate(rows[0], 1)]
    if len(set(names)) < len(names):
        raise UserError(f"'{called}' names a column twice in its first row: {', '.join(names)[:200]}.")
    columns = {name: [_value(row[i]) for row in rows[1:]] for i, name in enumerate(names)}
    numeric = {name for name, cells in columns.items() if _are_numbers(cells)}
    for name in numeric:
        columns[name] = [None if cell is None else float(cell) for cell in columns[name]]
    samples = {name: [cell for cell in cells if cell is not None][:SAMPLES] for name, cells in columns.items()}
    return Records(form, samples, columns.__getitem__)


def _value(cell: str) -> str | float | None:
    return cell if cell.strip() else None


def _are_numbers(cells: list[str | float | None]) -> bool:
    """Whether every cell that holds something holds a number."""
    try:
        return bool([float(cell) for cell in cells if cell is not None])
    except ValueError:
        return False


def _is_markdown(text: str) -> bool:
    lines = list(itertools.islice((line for line in io.StringIO(text) if line.strip()), ROWS))
    return len(lines) > 2 and all(line.lstrip().startswith("|") for line in lines) and set(lines[1]) <= set("|:- \n")


def _separator(file: File) -> str | None:
    """What stands between the columns; None for what is no table."""
    found = next((one for one in SEPARATORS if _columns(file.text, one)), None)
    if found in (",", ";") and file.suffix not in SUFFIXES and _is_prose(file.text, found):
        return None
    if found is None and file.suffix in SUFFIXES:
        first = file.text.lstrip().partition("\n")[0]
        likely = "\t" if file.suffix == ".tsv" else ";" if ";" in first and "," not in first else ","
        names = [name.strip().strip('"') for name in first.split(likely)]
        if all(map(NAME.fullmatch, names)) and (len(names) > 1 or names[0].lower() in ("text", "content")):
            return likely
    return found


def _columns(text: str, separator: str) -> list[str] | None:
    """Names of a table's columns: what its first row holds; None for what is no table.

    Of prose, lines that happen to have as many commas each are few, and a space follows a comma.
    """
    try:
        with _long_cells():
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


def _is_prose(text: str, separator: str) -> bool:
    """Whether the first line is a sentence: a part of it has four or more words, and a space follows each separator."""
    parts = text.lstrip().partition("\n")[0].split(separator)
    return any(len(part.split()) >= 4 for part in parts) and all(part.startswith(" ") for part in parts[1:])


@contextmanager
def _long_cells() -> Iterator[None]:
    """The csv module refuses cells beyond 131,072 characters unless it is told otherwise, for the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
