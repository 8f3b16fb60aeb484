"""The policy file: the level of every unit, the groups kept, costs, losses and provenance.

`policy.json`, schema `autoprune.policy/2`:

    {"schema": "autoprune.policy/2",
     "units": [{"name": "3.mlp", "kind": "mlp", "block": 3, "groups": 512, "level": 4,
                "form": "groups", "kept": 256, "density": 0.5, "options": {},       the level as a record (level.py)
                "kept_groups": "0-3,7,9-11,..."}, ...],       level: null where single groups were searched
     "costs": {"params": {"dense": ..., "policy": ..., "budget": ..., "network": {"dense": ..., "policy": ...},
                          "of": "prunable", "measure": null}, ...},
     "losses": {"search": ..., "search_tokens": ..., "validation": {...}},
     "provenance": {"model": ..., "model_hash": ..., "data_hash": ..., "agent": ..., "seed": ..., "versions": {...}},
     "refit": {"digest": ..., "sequences": 128, "seconds": ..., "search": {...}, "found": {...}}}       or null

Groups are numbered as in the original network. Ranges include both ends. With `refit`, the losses of the best policy on
the validation split are those of the refitted network, which is the one that is exported. Files of schema
`autoprune.policy/1` are read, too. They have no `form`, `density` and `options`, because every level was of the form
`groups`.
"""

import json
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from autoprune.files.reading import explained, read_json
from autoprune.files.writing import write_atomically
from autoprune.level import GROUPS, Level

SCHEMA: Literal["autoprune.policy/2"] = "autoprune.policy/2"
EARLIER = "autoprune.policy/1"
BEST = "best"
"""The name of the policy that a search found, in every table."""
FOUND = "found"
"""The name of the same policy without its refit."""

RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
MOST_GROUPS = 10**7
"""The most groups that a unit may have. A larger number means that the file is damaged."""


def ranges(numbers: list[int]) -> str:
    """Ascending integers as `0-3,7`."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def unranges(text: str) -> list[int]:
    """The integers of `0-3,7`.

    Raises:
        ValueError: malformed, or not ascending.
    """
    return [number for first, last in _spans(text) for number in range(first, last + 1)]


def _spans(text: str) -> list[tuple[int, int]]:
    """The first and the last integer of every range; a ValueError as of `unranges`."""
    spans: list[tuple[int, int]] = []
    for part in filter(None, text.split(",")):
        match = RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"'{part}' is no range of groups")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or (spans and first <= spans[-1][1]):
            raise ValueError(f"the range '{part}' is not ascending")
        if last >= MOST_GROUPS:
            raise ValueError(f"the range '{part}' goes beyond the {MOST_GROUPS:,} groups that a unit may have")
        spans.append((first, last))
    return spans


@lru_cache(maxsize=8)
def _counted(text: str) -> tuple[int, int]:
    """The number of integers in ranges and the last of them, -1 without any; they are not listed, for speed."""
    spans = _spans(text)
    return sum(last - first + 1 for first, last in spans), spans[-1][1] if spans else -1


def _checked_ranges(text: str) -> str:
    _counted(text)
    return text


def _checked_losses(losses: dict[str, Any]) -> dict[str, Any]:
    """Check the known losses, because they are displayed. Other keys may hold anything."""
    NUMBERS.validate_python({name: losses.get(name) for name in ("search", "search_tokens")})
    MEASURED.validate_python(losses.get("validation", {}))
    return losses


NUMBERS = TypeAdapter(dict[str, float | None], config=ConfigDict(strict=True))
MEASURED = TypeAdapter(dict[str, dict[str, float | None]], config=ConfigDict(strict=True))


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UnitPolicy(_Record):
    """The level of one unit, and which groups it keeps.

    `level` is its number among the levels of the search; None where single groups were searched.
    """

    name: str
    kind: str
    block: int = Field(ge=0)
    groups: int = Field(gt=0, le=MOST_GROUPS)
    level: int | None = Field(ge=0)
    form: str = Field(GROUPS, min_length=1)
    kept: int = Field(ge=0)
    density: float = Field(ge=0, le=1)
    options: dict[str, int | float | str] = {}
    kept_groups: Annotated[str, AfterValidator(_checked_ranges)]

    @property
    def as_level(self) -> Level:
        """Its level."""
        return Level(self.kept, self.density, self.form, tuple(self.options.items()))

    @model_validator(mode="after")
    def _consistent(self) -> "UnitPolicy":
        count, last = _counted(self.kept_groups)
        if count != self.kept or last >= self.groups:
            raise ValueError(
                f"unit {self.name}: kept_groups '{self.kept_groups}' names {count} groups of {self.groups}, "
                f"kept says {self.kept}"
            )
        if self.form == GROUPS and self.density != self.kept / self.groups:
            raise ValueError(f"unit {self.name}: {self.kept} of {self.groups} groups have no density of {self.density}")
        return self


class Totals(_Record):
    """Totals of a metric over the whole network, dense and under the policy."""

    dense: float
    policy: float


class Cost(_Record):
    """Totals of a metric over all units, and their bound `budget` (None if there is none).

    `network` has the totals of the whole network, which is more than the units. It is None where it was not counted.
    `of` says what the totals and the bound are of: what can be pruned, or the whole network (`model`). It is None in
    files of earlier versions, and for metrics of one's own. `measure` is the unit of measurement, such as ms.
    """

    dense: float
    policy: float
    budget: float | None = None
    network: Totals | None = None
    of: Literal["prunable", "model"] | None = None
    measure: str | None = None


class Refit(_Record):
    """How the network of a policy was refitted once the policy was found (autoprune/refits.py).

    Args:
        digest: SHA-256 of the file with its weights.
        sequences: samples of the reconstruction split that it was fitted on.
        seconds: what it took.
        search: losses on the same samples of the search split: `found`, as the search scored it, and `refitted`.
        found: what was measured on the validation split without the refit.
    """

    digest: str
    sequences: int = Field(ge=1)
    seconds: float = Field(ge=0)
    search: dict[str, float | None] = {}
    found: dict[str, float | None] = {}


class Policy(_Record):
    """A pruning policy and its provenance. `refit` is None where the network has the weights of its levels."""

    schema_: Literal["autoprune.policy/2"] = Field(SCHEMA, alias="schema")
    units: list[UnitPolicy]
    costs: dict[str, Cost]
    losses: Annotated[dict[str, Any], AfterValidator(_checked_losses)]
    provenance: dict[str, Any]
    refit: Refit | None = None

    def as_found(self) -> "Policy":
        """The same policy without its refit, with the losses of that network."""
        if self.refit is None:
            return self
        validation = self.losses.get("validation", {}) | {self.called: self.refit.found}
        return self.model_copy(update={"refit": None, "losses": self.losses | {"validation": validation}})

    @property
    def called(self) -> str:
        """The name of this policy among those that were measured: "best", or its name in a front."""
        measured = self.losses.get("validation")
        return str([*measured][-1]) if isinstance(measured, dict) and measured else BEST

    def save(self, path: Path) -> None:
        """Write the file in one step, so that readers see either the old file or the new one.

        Raises:
            UserError: the disk is full or not writable.
        """
        write_atomically(path, to_json(self.model_dump(by_alias=True), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Read and validate.

        Raises:
            UserError: no such file, not JSON, or not of the schema.
        """
        with explained("the policy", path):
            return cls.model_validate(_of_today(read_json(path)))


def _of_today(record: Any) -> Any:
    """Convert a record of an earlier schema to the present one; return anything else unchanged."""
    if not isinstance(record, dict) or record.get("schema") != EARLIER or not isinstance(record.get("units"), list):
        return record
    units = [_with_density(one) if isinstance(one, dict) else one for one in record["units"]]
    return record | {"schema": SCHEMA, "units": units}


def _with_density(unit: dict[str, Any]) -> dict[str, Any]:
    kept, groups = unit.get("kept"), unit.get("groups")
    if isinstance(kept, int) and isinstance(groups, int) and groups > 0:
        return unit | {"density": kept / groups}
    return unit  # what is wrong with it is told where it is checked


def to_json(record: Any, indent: int | None = None) -> str:
    """Strict JSON, which has no infinity: the loss of a network that overflows is null."""
    return json.dumps(_finite(record), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
