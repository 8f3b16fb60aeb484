"""A level is one way that a unit can be: a record of its form and of how much is left.

A form says what the numbers of its levels mean: how they are named, counted, reconstructed and put in place. The
form `groups` keeps a number of whole groups of a unit. A form has two classes and one line in the registry. The class
without tensors derives from `Form` (below), the class with tensors from `LiveForm` (levels/form.py).

In files, a level of the form `groups` is the number of groups kept. A level of any other form is a mapping:

    {"form": "bits", "kept": 512, "density": 0.25, "options": {"bits": 4}}
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from autoprune import registry
from autoprune.errors import UserError
from autoprune.wording import groups as called

if TYPE_CHECKING:
    from autoprune.ports.offer import Offer
    from autoprune.unit import Unit

GROUPS = "groups"
"""The form that keeps or removes whole groups."""

Key = int | str
"""What distinguishes a level from the others of its unit: the groups kept for the form `groups`, otherwise the name."""

Option = int | float | str


@dataclass(frozen=True)
class Level:
    """One way that a unit can be.

    Args:
        kept: number of groups that are kept at least in part.
        density: share of the unit's weights that are stored, in [0, 1]. A weight with fewer bits than the dense one
            counts by its share of the bits. So the density says how much of a unit is left in any form.
        form: name of the form, as in the registry.
        options: further values of the form, such as `(("bits", 4),)`, in the form's own order.
    """

    kept: int
    density: float
    form: str = GROUPS
    options: tuple[tuple[str, Option], ...] = ()

    @classmethod
    def of_groups(cls, kept: int, groups: int) -> "Level":
        """The level that keeps `kept` of a unit's groups."""
        return cls(kept, kept / groups)

    @functools.cached_property
    def name(self) -> str:
        """The level's name, which is the same in every run: `groups:256`, `bits:512,bits=4`."""
        return ",".join([f"{self.form}:{self.kept}", *(f"{key}={value}" for key, value in self.options)])

    @functools.cached_property
    def key(self) -> Key:
        """What distinguishes it from other levels of its unit."""
        return self.kept if self.form == GROUPS else self.name

    def option(self, name: str) -> Option:
        """The option of that name.

        Raises:
            KeyError: there is no such option.
        """
        return dict(self.options)[name]

    def to_json(self) -> int | dict[str, Any]:
        """The level as it is written in files."""
        if self.form == GROUPS:
            return self.kept
        return {"form": self.form, "kept": self.kept, "density": self.density, "options": dict(self.options)}

    @classmethod
    def from_json(cls, value: Any, groups: int) -> "Level":
        """Read a level as it is written in files, for a unit with `groups` groups.

        Raises:
            ValueError: the value is not a level.
        """
        if isinstance(value, Mapping):
            options = value.get("options", {})
            if not isinstance(options, Mapping):
                raise ValueError("the options of a level are no mapping")
            pairs = tuple((str(key), option) for key, option in options.items())
            level = cls(value.get("kept", -1), value.get("density", math.nan), value.get("form", ""), pairs)
        else:
            level = cls(value, value / groups if _is_count(value, groups) else math.nan)
        level.check(groups)
        return level

    def check(self, groups: int) -> None:
        """Raise a ValueError unless it can be a level of a unit with `groups` groups."""
        if not isinstance(self.form, str) or not self.form:
            raise ValueError("a level has no form")
        if not _is_count(self.kept, groups):
            raise ValueError(f"a level keeps {self.kept!r} of {groups} groups")
        if isinstance(self.density, bool) or not isinstance(self.density, int | float) or not 0 <= self.density <= 1:
            raise ValueError(f"a level's density is {self.density!r}")
        if any(not isinstance(option, int | float | str) for _, option in self.options):
            raise ValueError(f"an option of the level {self.form} is neither a number nor a text")


def group_levels(groups: int, kept: Iterable[int]) -> tuple[Level, ...]:
    """Levels that keep so many of a unit's groups, in the order given."""
    return tuple(Level.of_groups(number, groups) for number in kept)


def _is_count(value: Any, groups: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= groups and groups > 0


class Width(Protocol):
    """The part of a live width that latency measurements use."""

    kept: int

    def keep(self, groups: int) -> None:
        """Keep the first groups."""
        ...

    def bare(self) -> bool:
        """Take off what a form put in the place of a dropped sub-block. Returns whether there was something."""
        ...


class Form:
    """The words, costs and shapes of the levels of one form. No tensors are needed.

    By default a level stores all weights of the groups that it keeps, as the dense network does.

    Attributes:
        ends: whether embeddings and head can have levels of the form. They are units of a single group.
    """

    ends: bool = False

    def check_argument(self, argument: str) -> None:
        """Raise a UserError unless the form takes what the user wrote behind its name; by default it takes nothing.

        Args:
            argument: what stands behind the name and a colon in the setting `forms`; empty where nothing does.
        """
        if argument:
            raise UserError(f"a form of levels was given the argument '{argument}', and it takes none: write its name.")

    def levels(self, of: "Offer") -> Sequence[Level]:
        """The levels that the form has for a unit, in any order, without the dense one. By default there are none.

        The levels of all forms that a search may use are put together and ordered by density (forms.py).

        Args:
            of: the unit, its live width, the network and the settings.

        Raises:
            UserError: the form cannot be had for this unit.
        """
        return ()

    def notice(self, metrics: Sequence[str]) -> str | None:
        """A sentence that users of levels of this form should read when these metrics are budgeted; None by default."""
        return None

    def drops(self, level: Level) -> bool:
        """Whether the unit is dropped at this level."""
        return level.kept == 0

    def size(self, level: Level, groups: int) -> float:
        """How much of a unit a level keeps, counted in groups; parts of a group count by their density."""
        return level.density * groups

    def short(self, level: Level) -> str:
        """How tables name a level of a unit."""
        return level.name

    def told(self, level: Level, groups: int, kind: str) -> str:
        """How messages name a level, behind "at": `48 of 96 groups kept`.

        Args:
            level: the level.
            groups: of the unit.
            kind: of the unit.
        """
        kept = f"{level.kept:,} of {groups:,} {called([kind])} kept"
        return kept if level.form == GROUPS else f"{kept} as {level.name}"

    def params(self, unit: "Unit", level: Level) -> float:
        """Parameters that are stored, without those that leave only with the last group (`Unit.fixed_params`)."""
        return unit.params(level.kept)

    def nonzeros(self, unit: "Unit", level: Level) -> float:
        """Parameters that are not zero, each of which counts as one, whatever its bits."""
        return unit.params(level.kept)

    def nbytes(self, unit: "Unit", level: Level, itemsize: int) -> float:
        """Bytes of all weights of the unit as they are stored, where a dense weight has `itemsize` bytes.

        Raises:
            UserError: the form cannot tell.
        """
        return 0.0 if self.drops(level) else itemsize * (unit.params(level.kept) + unit.fixed_params)

    def macs(self, unit: "Unit", level: Level, context: int) -> float:
        """Multiply-accumulates per token when `context` positions are attended to."""
        return unit.macs(level.kept, context)

    def zero_macs(self, unit: "Unit", level: Level) -> float:
        """Products per token with weights that are zero. Running the network counts them, and `macs` does not."""
        return 0.0

    def cache(self, unit: "Unit", level: Level) -> float:
        """Entries in the cache of keys and values for one position."""
        return unit.cache(level.kept)

    def kernels(self, unit: "Unit", level: Level) -> int:
        """Kernels that one pass launches at least: one for each matrix, and one for an attention's scores."""
        return 0 if self.drops(level) else unit.matrices + (unit.context_macs > 0)

    def shape(self, level: Level, width: Width) -> bool:
        """Give a live width the shape of a level, with any weights, to measure latency. Returns whether it changed."""
        changed = width.bare() or width.kept != level.kept
        if changed:
            width.keep(level.kept)
        return changed


@functools.cache
def form_called(name: str) -> Form:
    """The form of that name.

    Raises:
        UserError: there is no such form, or the registered object is not a form.
    """
    part = registry.load("forms", name)
    form = part() if isinstance(part, type) else part
    if not isinstance(form, Form):
        raise UserError(f"the form '{name}' is a {type(form).__name__}: it must derive from autoprune.level.Form.")
    return form


def left(level: Level, groups: int) -> str:
    """How tables say what a level leaves of a unit with so many groups: `3/6`, `4 bits`, `3/6, 4 bits`."""
    kept = f"{level.kept:,}/{groups:,}"
    if level.form == GROUPS:
        return kept
    short = form_of(level).short(level)
    return f"{kept}, {short}" if 0 < level.kept < groups else short


def what_is_kept(levels: Iterable[Level], kinds: Iterable[str]) -> str:
    """What the bars of a policy are shares of: its groups, or the weights that are stored if it has other forms."""
    if all(level.form == GROUPS for level in levels):
        return f"{called(kinds).capitalize()} kept"
    return "Share of the weights stored"


def form_of(level: Level) -> Form:
    """The form of a level.

    Raises:
        UserError: as `form_called`.
    """
    return form_called(level.form)
