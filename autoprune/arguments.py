"""Arguments of the Python interface: which of them were given, and that they are of the right type."""

import builtins
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pydantic import ConfigDict, SkipValidation, ValidationError, validate_call

from autoprune.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

Budgets = SkipValidation[Mapping[str, float | str] | Mapping[Path, float | str] | Sequence[str] | float | str | None]
"""All that `config.budgets_of` understands, and checks."""


class _NotGiven:
    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Any = _NotGiven()
"""The default of an argument whose value is a setting's: any value that a user gives, None too, overrides a file."""


def given(**arguments: Any) -> dict[str, Any]:
    """Those arguments that a user gave."""
    return {name: value for name, value in arguments.items() if value is not NOT_GIVEN}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function that says in a sentence, as a UserError, what is wrong with its arguments.

    One is of another type than annotated, or the operating system refuses a path, as one of 300 letters.
    """
    names = list(inspect.signature(function).parameters)
    validated = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(function)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return validated(*args, **kwargs)
        except OSError as error:
            if not error.filename:
                raise
            raise UserError(f"'{error.filename}' cannot be used ({error.strerror}).") from error
        except ValidationError as error:
            if error.title != function.__name__:  # it is not about these arguments
                raise
            raise UserError(f"autoprune.{function.__name__}: {told(error, names)}.") from error

    return called


def told(error: ValidationError, arguments: Sequence[str] = ()) -> str:
    """The first thing that is wrong: `NAME: what would be right (got VALUE)`.

    Args:
        error: of a record, or of a function's arguments.
        arguments: the names of these, in order.
    """
    first = error.errors()[0]
    head, *inside = first["loc"]
    places = [arguments[head] if arguments and isinstance(head, int) else head, *inside]
    # pydantic names types that were tried besides, as in `levels.int`
    where = [str(part) for part in places if not hasattr(builtins, str(part)) and "[" not in str(part)]
    return f"{'.'.join(where)}: {first['msg'].removeprefix('Value error, ')} (got {repr(first['input'])[:200]})"
