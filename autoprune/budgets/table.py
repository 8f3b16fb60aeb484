"""A table of measured costs (latencies, energy, ...) as a metric: `--budget latency.csv=0.6`.

A CSV file in UTF-8 with a header and the columns `unit`, `kept` and `cost`, in any order; other columns are ignored:

    unit,kept,cost
    attention,2,0.31
    attention,1,0.18
    mlp,96,0.52
    mlp,48,0.30
    3.mlp,96,0.61

- `unit` is the name of a unit (`3.mlp`) or a kind (`mlp`), which means all its units. A unit's own cost takes
  precedence.
- `kept` is the number of groups kept, as in policies: query heads of an attention, neurons of an MLP. A level of
  another form than `groups` stands there by its name. A search needs all levels of its units.
- `cost` is the cost, in any measure that adds over units. `kept` 0 may be left out and costs 0, because a dropped unit
  is not run.
"""

import csv
import io
import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.errors import UserError
from autoprune.files.reading import explained, read_bytes
from autoprune.level import Key, Level
from autoprune.ports.metric import Metric
from autoprune.space import Unit
from autoprune.workload import Workload

COLUMNS = ("unit", "kept", "cost")
BYTES = 2**26  # of a file, at most

SHORT = reprlib.Repr()
SHORT.maxstring = 80  # characters of a file that a message shows


@dataclass(frozen=True)
class Table(Metric):
    """A metric that looks costs up.

    Args:
        path: the file it was read from, for messages.
        costs: name or kind of a unit -> key of a level (level.py) -> cost.
    """

    path: Path
    costs: Mapping[str, Mapping[Key, float]]

    @property
    def described(self) -> str:
        """How messages name it."""
        return f"'{self.path}'"

    def __call__(self, unit: Unit, level: Level, workload: Workload) -> float:
        """The cost of a level of `unit`. The workload is the one that was measured.

        Raises:
            UserError: the table lacks it; names all levels of the unit that it lacks.
        """
        costs = self._costs(unit)
        if level.key not in costs:
            raise UserError(self._lacks(unit, self._missing(unit) or [level.key]))
        return costs[level.key]

    def check_units(self, units: Iterable[Unit]) -> None:
        """Nothing, when every level of the units has a cost.

        Raises:
            UserError: some lack theirs; names the levels of the first such unit and counts the other units.
        """
        lacking = [(unit, missing) for unit in units if (missing := self._missing(unit))]
        if lacking:
            raise UserError(self._lacks(*lacking[0], others=len(lacking) - 1))

    def _missing(self, unit: Unit) -> list[Key]:
        costs = self._costs(unit)
        return [level.key for level in unit.levels if level.key not in costs]

    def _costs(self, unit: Unit) -> dict[Key, float]:
        return {0: 0.0, **self.costs.get(unit.kind, {}), **self.costs.get(unit.name, {})}

    def _lacks(self, unit: Unit, missing: Iterable[Key], others: int = 0) -> str:
        more = f" (and levels of {others} other unit{'s' if others > 1 else ''})" if others else ""
        counted = f" Groups are query heads: what the table has for N KV groups is for {unit.bundle} x N of them."
        return (
            f"the table '{self.path}' lacks unit {unit.name} at {', '.join(map(str, missing))} of {unit.groups} groups "
            f"kept{more}: add rows for '{unit.name}', or '{unit.kind}' for all units of the kind."
            f"{counted if unit.bundle > 1 else ''}"
        )


def read(path: Path) -> Table:
    """The table in a CSV file, of the form above.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or a line is not of the form; names the line.
    """
    costs: dict[str, dict[Key, float]] = {}
    with explained("the table", path):
        text = read_bytes(path, BYTES).decode("utf-8-sig")  # -sig: spreadsheets write a byte order mark
    for line, unit, kept, cost in _rows(path, io.StringIO(text, newline="")):
        if kept in costs.setdefault(unit, {}):
            raise _malformed(path, line, f"{unit!r} at {kept} groups kept was given before")
        costs[unit][kept] = cost
    return Table(path, costs)


def _rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, str, Key, float]]:
    """Line number, unit, key of the level and cost of every row."""
    reader = csv.reader(lines, strict=True)
    try:
        header = [field.strip() for field in next(reader, [])]
        for column in COLUMNS:
            if header.count(column) != 1:
                seen = SHORT.repr(",".join(header))
                raise _malformed(path, 1, f"the header {seen} must name the column '{column}' once")
        for fields in reader:
            if not fields:  # a blank line
                continue
            if len(fields) != len(header):
                raise _malformed(path, reader.line_num, f"{len(fields)} fields, where the header has {len(header)}")
            row = dict(zip(header, (field.strip() for field in fields), strict=True))
            yield reader.line_num, *_values(path, reader.line_num, row)
    except csv.Error as error:
        raise _malformed(path, reader.line_num, f"no CSV ({error})") from error


def _values(path: Path, line: int, row: Mapping[str, str]) -> tuple[str, Key, float]:
    if not row["unit"]:
        raise _malformed(path, line, "the unit is empty")
    kept: Key = row["kept"]
    if ":" not in row["kept"]:  # which the name of a level has
        try:
            kept = int(row["kept"])
        except ValueError:
            kept = -1
        if kept < 0:
            seen = SHORT.repr(row["kept"])
            raise _malformed(path, line, f"kept is {seen}, and must be a number of groups, as 0 or 12")
    try:
        cost = float(row["cost"])
    except ValueError:
        cost = math.nan
    if not (math.isfinite(cost) and cost >= 0):
        raise _malformed(path, line, f"cost is {SHORT.repr(row['cost'])}, and must be a finite number of at least 0")
    return row["unit"], kept, cost


def _malformed(path: Path, line: int, complaint: str) -> UserError:
    return UserError(f"the table '{path}', line {line}: {complaint}.")
