"""The space file of a run, `space.json`: units, costs, budgets and statistics. With it, reports need no network.

Schema `autoprune.space/2`:

    {"schema": "autoprune.space/2", "task": "text", "words": {"task": ..., "item": "token", "sample": "sequence", ...},
     "units": [{"name": "3.mlp", "kind": "mlp", "block": 3, "groups": 512, "levels": [512, 448, ...], ...}, ...],
     "costs": {"params": [[cost at level 0, at level 1, ...] of each unit], ...},
     "group_costs": {"params": [[cost of 0 groups, of 1, ...] of each unit], ...},
     "budgets": {"params": <absolute bound>},
     "fixed": {"latency": <what is paid whatever the policy>, ...},
     "peaks": [names of the metrics of which the largest cost counts, not the sum],
     "floor": [densest level of each unit that is left, in later rounds],
     "statistics": [{"weight_norm": ..., ...} of each unit, or nothing],
     "coverage": {"units": 17, "shares": {"params": <share of the whole network that units are>, ...},
                  "left": [{"why": ..., "layers": 3, "params": <share of the network's>}, ...], "told": <the same>}}

level.py says how levels are written. `group_costs` is present if masks were searched. Files of schema
`autoprune.space/1`, which have `kept` instead of `levels`, are read, too.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, Field

from autoprune.files.reading import DAMAGE, explained, read_json
from autoprune.files.writing import write_atomically
from autoprune.level import Level
from autoprune.policy import MOST_GROUPS, to_json
from autoprune.space import SearchSpace, Unit
from autoprune.task_choice import words_of
from autoprune.unit_statistics import UnitStatistics
from autoprune.wording import Words

SCHEMA = "autoprune.space/2"
EARLIER = "autoprune.space/1"


class Covering(Protocol):
    """The part of a coverage (coverage.py) that is written."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def told(self) -> str:
        """The coverage in one or two sentences."""
        ...


def save_space(
    path: Path, space: SearchSpace, statistics: Sequence[UnitStatistics] = (), coverage: Covering | None = None
) -> None:
    """Write the space file.

    Args:
        path: the file to write.
        space: units, costs, budgets.
        statistics: statistics of the units.
        coverage: the share of the network that is in units.

    Raises:
        UserError: the disk is full or not writable.
    """
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "task": space.words.task,
        "words": asdict(space.words),
        "units": [asdict(unit) | {"levels": [level.to_json() for level in unit.levels]} for unit in space.units],
        "costs": {metric: space.rows(metric) for metric in space.costs},
        "group_costs": {metric: [row.tolist() for row in rows] for metric, rows in space.group_costs.items()},
        "budgets": space.budgets,
        "fixed": space.fixed,
        "peaks": sorted(space.peaks),
        "statistics": [asdict(one) for one in statistics],
    }
    if any(space.floor):
        record["floor"] = space.floor
    if coverage is not None:
        record["coverage"] = {**asdict(coverage), "told": coverage.told()}
    write_atomically(path, to_json(record) + "\n")


def words_of_run(run: Path) -> Words | None:
    """The words of a run's task; None if they are not known yet."""
    try:
        record = read_json(run / "space.json")
        return words_of(record)
    except (OSError, *DAMAGE):
        return None


def coverage_of(run: Path) -> dict[str, Any] | None:
    """The share of the network that is in units, from a run's file; None if it is not known."""
    try:
        record = read_json(run / "space.json").get("coverage")
        return None if record is None else _Coverage.model_validate(record).model_dump()
    except (OSError, *DAMAGE):
        return None


def load_space(path: Path) -> tuple[SearchSpace, list[UnitStatistics]]:
    """Read a space file.

    Raises:
        UserError: the file is missing or damaged.
    """
    with explained("the space file", path, "`autoprune resume` writes it anew"):
        record = read_json(path)
        kept = "kept" if record.get("schema") == EARLIER else "levels"
        record["units"] = [_with_levels(one, kept) for one in record["units"]]
        record["statistics"] = [_with_nan(one) for one in record["statistics"]]
        file = _File.model_validate(record)
        file.check()
        space = SearchSpace(
            file.units, file.costs, file.budgets, file.group_costs, file.fixed, words=words_of(record), peaks=file.peaks
        )
        space.floor = file.floor or space.floor
    return space, file.statistics


class _Left(BaseModel):
    why: str
    layers: int
    params: float


class _Coverage(BaseModel):
    units: int
    shares: dict[str, Annotated[float, Field(ge=0, le=1)]]
    left: list[_Left]
    told: str


class _File(BaseModel):
    """The file as read; those of earlier versions lack what has a default."""

    schema_: Literal["autoprune.space/1", "autoprune.space/2"] = Field(alias="schema")
    units: list[Unit] = Field(min_length=1)
    costs: dict[str, list[list[float]]]
    group_costs: dict[str, list[list[float]]]
    budgets: dict[str, Annotated[float, Field(gt=0)]]
    fixed: dict[str, Annotated[float, Field(ge=0)]] | None = None
    peaks: list[str] = []
    floor: tuple[int, ...] | None = None
    statistics: list[UnitStatistics]

    def check(self) -> None:
        """Raise a ValueError where its parts do not fit together."""
        for unit in self.units:
            numbers = [number for number in vars(unit).values() if isinstance(number, int)]
            densities = [level.density for level in unit.levels]
            distinct = len({level.key for level in unit.levels}) == len(densities)
            if min(numbers) < 0 or not 0 < unit.groups <= MOST_GROUPS:
                raise ValueError(f"the unit {unit.name} has a number out of range")
            if not distinct or densities != sorted(densities, reverse=True) or unit.levels[0].key != unit.groups:
                raise ValueError(f"the levels of the unit {unit.name} are not from all of its groups downwards")
        levels = [len(unit.levels) for unit in self.units]
        if self.floor and (
            len(self.floor) != len(levels) or not all(0 <= f < n for f, n in zip(self.floor, levels, strict=True))
        ):
            raise ValueError("its floor is of other units")
        if not self.budgets or not self.budgets.keys() <= self.costs.keys():
            raise ValueError("its budgets are not of its costs")
        counts = {"costs": [len(unit.levels) for unit in self.units], "group_costs": [u.groups + 1 for u in self.units]}
        for name, wanted in counts.items():
            for metric, rows in getattr(self, name).items():
                if [len(row) for row in rows] != wanted:
                    raise ValueError(f"{name}.{metric} has not one number for each level of each unit")
        if self.statistics and [len(one.output_errors) for one in self.statistics] != counts["costs"]:
            raise ValueError("its statistics are of other units")


def _with_levels(record: dict[str, Any], key: str) -> dict[str, Any]:
    """A unit with its levels, which stand under a key, as records."""
    levels, groups = record[key], record["groups"]
    if not isinstance(levels, list) or not levels:
        raise ValueError(f"a unit has no list of {key}")
    rest = {name: value for name, value in record.items() if name != key}
    return rest | {"levels": [Level.from_json(level, groups) for level in levels]}


def _with_nan(record: dict[str, Any]) -> dict[str, Any]:
    """What is known of a unit; a number that overflowed is null in the file."""
    errors = [math.nan if error is None else error for error in record["output_errors"]]
    return {name: math.nan if value is None else value for name, value in record.items()} | {"output_errors": errors}
