"""Arguments of the Python interface and of parts: which of them were given, and that they are of the right type."""

import builtins
import difflib
import functools
import inspect
from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import ConfigDict, SkipValidation, TypeAdapter, ValidationError, validate_call

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


def made(part: Callable[..., R], options: Mapping[str, Any], called: str, word: str, prefix: str = "") -> R:
    """A part with its options, which are the arguments of its constructor, checked against their annotations.

    Args:
        part: the class.
        options: those that a user gave, by name.
        called: how messages name the part, as `the agent 'ppo'`.
        word: what its options are called, in the singular.
        prefix: what stands before an option's name where the user wrote it.

    Raises:
        UserError: there is no such option (with near misses), it takes no such value, or one is missing; or the class
            lacks a method that its port asks for.
    """
    if isinstance(part, ABCMeta) and part.__abstractmethods__:
        raise UserError(f"{called} has no method '{min(part.__abstractmethods__)}', which it must have.")
    signature, hints = inspect.signature(part), _hints(part)
    known = [one.name for one in signature.parameters.values() if one.kind != one.VAR_KEYWORD]
    takes_any = len(known) < len(signature.parameters)
    values = {}
    for option, value in options.items():
        if option not in known and not takes_any:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UserError(f"{called} has no {word} '{option}'.{hint} It has: {', '.join(known) or 'none'}.")
        try:
            values[option] = TypeAdapter(hints.get(option, Any)).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UserError(f"{prefix}{option} of {called}: {reason} (got {value!r}).") from error
    try:
        signature.bind(**values)
    except TypeError as error:
        raise UserError(f"{called}: {error}. It takes: {', '.join(known) or 'nothing'}.") from error
    return part(**values)


def _hints(part: Any) -> dict[str, Any]:
    """The types of a constructor's arguments; none where an annotation names what is not there."""
    constructor = inspect.getattr_static(part, "__init__") if isinstance(part, type) else part
    try:
        return get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError):
        return {}


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
