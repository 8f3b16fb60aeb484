"""Checks arguments of the Python interface and of parts: which ones were given, and whether their types are right."""

import builtins
import difflib
import functools
import inspect
from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, SkipValidation, TypeAdapter, ValidationError, validate_call

from autoprune.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

Budgets = SkipValidation[Mapping[str, float | str] | Mapping[Path, float | str] | Sequence[str] | float | str | None]
"""Any form of budgets that `written.budgets_of` reads and checks."""


class _NotGiven:
    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Any = _NotGiven()
"""The default of an argument that is a setting. Any value that a user gives, even None, overrides the file."""


def given(**arguments: Any) -> dict[str, Any]:
    """The arguments that the user gave."""
    return {name: value for name, value in arguments.items() if value is not NOT_GIVEN}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that a wrong argument raises a UserError with one sentence.

    An argument is wrong if its type differs from the annotation, or if the operating system refuses it as a path.
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
    """Construct a part. Its options are the arguments of its constructor, checked against the annotations.

    Args:
        part: the class.
        options: the options that the user gave, by name.
        called: the name of the part in messages, such as `the agent 'ppo'`.
        word: the word for an option in messages, in the singular.
        prefix: the text before an option's name in the user's input.

    Raises:
        UserError: an option is unknown or missing or has a wrong value, or the class lacks a method that its port
            requires.
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
        if truth_astray(value, hints.get(option, Any)):
            raise UserError(f"{prefix}{option} of {called}: {TRUTH} (got {value!r}).")
        try:
            values[option] = TypeAdapter(hints.get(option, Any)).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UserError(f"{prefix}{option} of {called}: {reason} (got {value!r}).") from error
    try:
        signature.bind(**values)
    except TypeError as error:
        way = getattr(part, "way_out", f"It takes: {', '.join(known) or 'nothing'}.")
        raise UserError(f"{called}: {error}. {way}") from error
    return part(**values)


TRUTH = "true and false are no values of it; YAML reads yes, no, on and off as these, unless they are in quotes"


def truth_astray(value: Any, hint: Any) -> bool:
    """Whether a value is or holds True or False, and its type has no place for them.

    Pydantic would take True for the number 1, and YAML takes `yes` for True.
    """
    if isinstance(value, bool):
        return not _takes_truth(hint)
    if isinstance(value, Mapping):
        return any(truth_astray(one, hint) for one in value.values())
    return isinstance(value, (list, tuple)) and any(truth_astray(one, hint) for one in value)


def _takes_truth(hint: Any) -> bool:
    """Whether true and false are among the values of a type; of a record, its own fields decide."""
    inside = get_args(hint)
    if get_origin(hint) is Annotated:  # whose other arguments are no types
        return _takes_truth(inside[0])
    if hint is Any:
        return True
    if inside:
        return any(one is True or one is False or _takes_truth(one) for one in inside)
    if isinstance(hint, type):
        return hint in (bool, object) or is_dataclass(hint) or issubclass(hint, BaseModel)
    return not isinstance(hint, str | float | int) and hint is not None


def _hints(part: Any) -> dict[str, Any]:
    """The types of a constructor's arguments; empty where an annotation names something that does not exist."""
    constructor = inspect.getattr_static(part, "__init__") if isinstance(part, type) else part
    try:
        return get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError):
        return {}


def told(error: ValidationError, arguments: Sequence[str] = ()) -> str:
    """Describe the first mistake: `NAME: what would be right (got VALUE)`.

    Args:
        error: raised for a record or for the arguments of a function.
        arguments: the names of the function's arguments, in order.
    """
    first = error.errors()[0]
    head, *inside = first["loc"]
    places = [arguments[head] if arguments and isinstance(head, int) else head, *inside]
    # pydantic names types that were tried besides, as in `levels.int`
    where = [str(part) for part in places if not hasattr(builtins, str(part)) and "[" not in str(part)]
    said = first["msg"].removeprefix("Value error, ")
    if said.startswith("the budget "):  # it names its metric and its bound
        return str(said)
    seen = f" (got {repr(first['input'])[:200]})"
    return f"{'.'.join(where)}: {said}{seen}"
