"""Parses names of data as people write them: a file, several of them, several with weights (`b.jsonl=2`).

Nothing is read here. What a name means is found out by `autoprune.data.text` and `autoprune.data.images`.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from autoprune.errors import UserError
from autoprune.written import path_as_text

STDIN = "-"
Names = str | list[str] | dict[str, float]
"""One name; several of which everything is read; several with the share of the sequences that each of them gives."""


@dataclass(frozen=True)
class Wanted:
    """What is to be read.

    Args:
        names: the name or the names; None is the default of the task.
        column: of records, where texts are; None guesses.
        split: of data sets; None is `train` or the only one.
    """

    names: Names | None = None
    column: str | None = None
    split: str | None = None

    @property
    def called(self) -> str:
        """For messages."""
        return "the default text" if self.names is None else f"'{', '.join(names_in(self.names))}'"


def wanted_of(data: "Wanted | Names | None") -> Wanted:
    """A name or names alone as something wanted."""
    return data if isinstance(data, Wanted) else Wanted(names_of(data))


def names_in(names: Names | None) -> list[str]:
    """The names, without weights."""
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def as_written(names: Names | None) -> list[str]:
    """The names as `--data` takes them, each with its weight where there are weights."""
    if isinstance(names, dict):
        return [f"{name}={weight:g}" for name, weight in names.items()]
    return names_in(names)


def one_name(names: Names | None, what: str) -> str | None:
    """The only name.

    Args:
        what: is read from it, for the message.

    Raises:
        UserError: there are several.
    """
    found = names_in(names)
    if len(found) > 1:
        raise UserError(f"{what} are read from one place, and --data names {len(found)}: {', '.join(found)[:200]}.")
    return found[0] if found else None


def names_of(given: Any) -> Names | None:
    """Names from any form that a user may write: a name, a path, a list of these, a mapping from name to weight.

    A name in a list, or alone, may end with its weight: `b.jsonl=2`. Where one of a list has a weight, others weigh 1.

    Raises:
        UserError: it has none of these forms, a weight is not above 0, or something is named twice.
    """
    given = path_as_text(given)
    if given is None:
        return None
    pairs: list[tuple[str, float | None]]
    if isinstance(given, Mapping):
        pairs = [(_name(path_as_text(name)), _weight(name, weight)) for name, weight in given.items()]
    elif isinstance(given, (str, list, tuple)):
        pairs = [_with_weight(_name(path_as_text(one))) for one in ([given] if isinstance(given, str) else given)]
    else:
        raise UserError(f"data takes a name, several, or a mapping from name to weight (got {given!r:.200}).")
    if not pairs:
        raise UserError("data names nothing: give a file, several, or a mapping from name to weight.")
    _check_once(name for name, _ in pairs)
    if len(pairs) == 1:
        return pairs[0][0]
    if all(weight is None for _, weight in pairs):
        return [name for name, _ in pairs]
    return {name: 1.0 if weight is None else weight for name, weight in pairs}


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"data takes names of files, folders or data sets (got {name!r:.200}).")
    return name


def _with_weight(text: str) -> tuple[str, float | None]:
    """A name and its weight; a file whose own name looks so is a name."""
    name, separator, weight = text.rpartition("=")
    if not separator or not name or os.path.exists(text):
        return text, None
    if not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?|nan|[+-]?inf", weight.strip(), flags=re.IGNORECASE):
        if os.path.exists(name):
            raise UserError(f"the weight of '{name}' is '{weight}': a number above 0 is needed, as {name}=2.")
        return text, None
    try:
        return name, _weight(name, float(weight))
    except ValueError:
        raise UserError(f"the weight of '{name}' is '{weight}': a number above 0 is needed, as {name}=2.") from None


def _weight(name: Any, weight: Any) -> float:
    number = float(weight) if isinstance(weight, Real) and not isinstance(weight, bool) else math.nan
    if not (math.isfinite(number) and number > 0):
        raise UserError(
            f"the weight of '{name}' is {weight!r}: a number above 0 is needed. Leave out what is not wanted."
        )
    return number


def _check_once(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        place = os.path.realpath(name) if os.path.exists(name) else name
        if place in seen:
            also = "" if seen[place] == name else f" (it is '{seen[place]}')"
            raise UserError(
                f"the data name '{name}' twice{also}: sequences of one split would be in the others too. For more of "
                f"it beside others give a weight, as {name}=2."
            )
        seen[place] = name
