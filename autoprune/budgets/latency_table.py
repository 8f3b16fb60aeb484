"""A metric from a table of measured times, and its file.

Schema `autoprune.latency/1`, times in milliseconds of one forward pass:

    {"schema": "autoprune.latency/1",
     "measured_on": {"device": "NVIDIA H200", "threads": ..., "torch": ..., "dtype": ..., "workload": {...}, ...},
     "fixed": 3.1,
     "classes": [{"units": ["0.mlp", "1.mlp", ...], "kept": [0, 128, ...], "ms": [0.0, 0.41, ...]}, ...],
     "checks": [{"network": "dense", "predicted": 24.9, "measured": 25.2}, ...]}

A class's `ms` are the times of one of its units with the numbers of groups in `kept`. A level of another form than
`groups` stands in `kept` by its name. For units that are never dropped, `kept` begins at their fewest groups, whose
time is a part of `fixed`. `checks` compares whole networks with the sums of the table.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autoprune.errors import UserError
from autoprune.files.reading import first_of, read_json
from autoprune.files.writing import write_atomically
from autoprune.level import GROUPS, Level
from autoprune.ports.metric import Metric
from autoprune.space import Unit
from autoprune.workload import Workload

FILE = "latency.json"
TOLERANCE = 0.1  # what a whole network may be off by before the user is warned

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ClassTimes(BaseModel):
    """Units of one shape, and what one of them takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    units: list[str] = Field(min_length=1)
    kept: list[Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=":")]] = Field(min_length=1)
    ms: list[Milliseconds]

    @model_validator(mode="after")
    def _rows(self) -> "ClassTimes":
        if len(self.kept) != len(self.ms) or self.ms[0] != 0:
            raise ValueError("there must be a time for every number of groups, the first of them 0 ms")
        if any(b <= a for a, b in pairwise(self.counted[0])):
            raise ValueError("the numbers of groups must rise")
        if any(b < a for a, b in pairwise(self.ms)):
            raise ValueError("fewer groups may not take longer")
        return self

    @cached_property
    def counted(self) -> tuple[list[int], list[float]]:
        """Numbers of groups kept, and what they take."""
        found = [(key, ms) for key, ms in zip(self.kept, self.ms, strict=False) if isinstance(key, int)]
        return [key for key, _ in found], [ms for _, ms in found]

    @cached_property
    def named(self) -> dict[str, float]:
        """What levels of other forms take, by name."""
        return {key: ms for key, ms in zip(self.kept, self.ms, strict=True) if isinstance(key, str)}


class Check(BaseModel):
    """A whole network, measured, and the table's sum for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    predicted: Milliseconds
    measured: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return self.predicted / self.measured - 1


class LatencyTable(BaseModel, Metric):
    """Milliseconds by unit and level; between measured numbers of groups they are interpolated linearly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["autoprune.latency/1"] = Field(alias="schema")
    measured_on: dict[str, Any]
    fixed_ms: Milliseconds = Field(alias="fixed")
    classes: list[ClassTimes]
    checks: list[Check]

    @property
    def fixed(self) -> float:
        """Milliseconds of what is left when every unit is at its least."""
        return self.fixed_ms

    @property
    def whole(self) -> bool:
        """Whole networks are timed."""
        return True

    @property
    def measure(self) -> str:
        """What it counts in."""
        return "ms"

    @property
    def described(self) -> str:
        """How messages name it."""
        return "'latency'"

    @property
    def largest_error(self) -> float:
        """Of the checks, relative, without its sign."""
        return max((abs(check.error) for check in self.checks), default=0.0)

    @property
    def notice(self) -> str:
        """How good it is."""
        device, error = self.measured_on.get("device", "this device"), f"{100 * self.largest_error:.1f} %"
        if self.largest_error <= TOLERANCE:
            return f"latency on {device}: the table is within {error} of {len(self.checks)} whole networks."
        return (
            f"warning: latency on {device}: the table is off by up to {error} of whole networks, so the budget holds "
            "no better than that. Was the machine busy? Delete the table and measure again: "
            f"'{self.measured_on.get('file', FILE)}'."
        )

    def __call__(self, unit: Unit, level: Level, workload: Workload) -> float:
        """Milliseconds of a level of `unit`, in the workload that was measured.

        Raises:
            UserError: the table lacks the unit or the level.
        """
        found = self._class_of.get(unit.name)
        if found is not None and level.key in found.named:
            return found.named[level.name]
        kept, ms = ([], []) if found is None else found.counted
        if level.form != GROUPS or not kept or level.kept > kept[-1]:
            lacking = f"{level.kept} groups" if level.form == GROUPS else level.name
            raise UserError(f"the latency table lacks unit {unit.name} at {lacking}: it is of another network.")
        return float(np.interp(level.kept, kept, ms))

    def total(self, units: Sequence[Unit], levels: Sequence[Level], workload: Workload) -> float:
        """Milliseconds of a whole network."""
        return self.fixed + sum(self(unit, level, workload) for unit, level in zip(units, levels, strict=True))

    def save(self, directory: Path) -> None:
        """Write `latency.json` of a run; one that is there holds the same."""
        if not (directory / FILE).exists():
            self.save_as(directory / FILE)

    def save_as(self, path: Path) -> None:
        """Write the file.

        Raises:
            UserError: the disk is full or not writable.
        """
        write_atomically(path, self.model_dump_json(by_alias=True, indent=1) + "\n")

    @cached_property
    def _class_of(self) -> dict[str, ClassTimes]:
        return {name: one for one in self.classes for name in one.units}


def load_table(path: Path) -> LatencyTable:
    """A table from its file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged; one line says where.
    """
    try:
        return LatencyTable.model_validate(read_json(path))
    except ValidationError as error:
        raise ValueError(first_of(error)) from None
