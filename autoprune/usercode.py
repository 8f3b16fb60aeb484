"""Calls a user's own code and describes its errors.

The author of a plug-in gets one sentence with file and line, not a traceback of the engine.
"""

import functools
import importlib
import inspect
import os
import reprlib
import sys
import sysconfig
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from autoprune.errors import LimitReached, StopSearch, UserError

LONGEST = 400  # characters of an exception's message: some hold whole tensors
FILES: set[str] = set()
"""Files of parts that are not ours, as tracebacks name them; the registry adds to them."""


def located(function: Any) -> str:
    """The name of a user's callable in messages: `'energy' (my_budget.py, line 12)`.

    A partial or a wrapper is named after the function inside. Classes and callables without source (builtins,
    instances) are named without a place.
    """
    function = _unwrapped(function)
    name = f"'{getattr(function, '__name__', type(function).__name__)}'"
    code = getattr(function, "__code__", None)
    if code is None or code.co_filename.startswith("<"):
        return name
    return f"{name} ({_place(code.co_filename, code.co_firstlineno)})"


def call(kind: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the function and return its result.

    Args:
        kind: the word for the function in messages, such as `budget`.

    Raises:
        UserError: the function raised an exception. The message says which one and where. Its own UserErrors, the end
            of a search (LimitReached, StopSearch), Ctrl-C and SystemExit pass unchanged.
    """
    try:
        return function(*args, **kwargs)
    except (UserError, LimitReached, StopSearch):
        raise
    except Exception as error:
        raise UserError(f"the {kind} {located(function)} raised {told(error, _file(function))}.") from error


def blamed(error: BaseException) -> str | None:
    """What to tell of an exception that passed through a part of the user's; None of any other exception."""
    places = [] if error.__traceback__ is None else _places(error.__traceback__)
    own = [path for path, _ in places if path in FILES]
    return f"your own code raised {told(error, own[-1])}." if own else None


@contextmanager
def blaming(kind: str, part: Any) -> Iterator[None]:
    """Tell of an exception of a part that may be ours or the user's: one that the user's code raised is a UserError.

    What the disk or the memory of a device lacks passes unchanged, whoever asked for it.

    Args:
        kind: the word for the part in messages, such as `agent`.
        part: the part.

    Raises:
        UserError: the user's own code raised an exception. The message says which one and where.
    """
    try:
        yield
    except (UserError, StopSearch, OSError):
        raise
    except Exception as error:
        sentence = None if type(error).__name__ == "OutOfMemoryError" else blamed(error)
        if sentence is None:
            raise
        raise UserError(f"in the {kind} {located(part)}, {sentence}") from error


def told(error: BaseException, file: str | None = None) -> str:
    """Describe an exception in a message: `ZeroDivisionError at my_budget.py, line 14: division by zero`.

    Args:
        file: the place is the last line of the traceback in this file, otherwise its last line outside of installed
            libraries, otherwise its last line. The frames of the caller and of Python's import are ignored.
    """
    text, place = str(error), None
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):
        text, place = error.msg, (error.filename, error.lineno or 1)
    elif error.__traceback__ is not None:
        places = _places(error.__traceback__)
        own = [(path, line) for path, line in places if path == file]
        installed = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
        outside = [(path, line) for path, line in places if not path.startswith(installed)]
        place = next((found[-1] for found in (own, outside, places) if found), None)
    where = f" at {_place(*place)}" if place else ""
    text = textwrap.shorten(text, LONGEST, placeholder=" ...").rstrip(".")
    return f"{type(error).__name__}{where}{': ' if text else ''}{text}"


def shown(value: Any) -> str:
    """How messages show what a user's code gave: short, and on one line."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"a {type(value).__name__} of shape {list(shape)} and {getattr(value, 'dtype', 'no dtype')}"
    return " ".join(reprlib.repr(value).split())


def _places(caught: TracebackType) -> list[tuple[str, int]]:
    """File and line of a traceback's frames, without the module that caught it and the machinery of imports."""
    machinery = (caught.tb_frame.f_code.co_filename, importlib.__file__)
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(caught)]
    return [(path, line) for path, line in places if path not in machinery and not path.startswith("<frozen")]


def _unwrapped(function: Any) -> Any:
    """What is inside of partials and of decorators that used functools.wraps."""
    while True:
        inner = function.func if isinstance(function, functools.partial) else inspect.unwrap(function)
        if inner is function:
            return function
        function = inner


def _file(function: Any) -> str | None:
    """The file a callable was written in, as tracebacks name it."""
    function = _unwrapped(function)
    code = getattr(function, "__code__", None)
    if code is not None:
        return str(code.co_filename)
    return getattr(sys.modules.get(getattr(function, "__module__", None) or ""), "__file__", None)


def _place(filename: str, line: int) -> str:
    path = Path(filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}, line {line}"
