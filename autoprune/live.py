"""The table of live objects: parts and networks that were given in Python and that no file or module can name.

A run's files name such an object `live:NAME_FINGERPRINT`. The object itself is known to this process only: a run that
uses it is resumed in this process, or with the object given again (`autoprune.resume(RUN, parts=[...])`).
"""

import copy
import functools
import inspect
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autoprune import usercode
from autoprune.errors import UserError
from autoprune.fingerprints import fingerprint

PREFIX = "live:"
CLASSES = ("agents", "criteria", "losses", "tasks")
"""Kinds of parts that are classes: an object of one stands for a class that makes copies of it."""
DIGITS = 8
"""Of a fingerprint, in the name of a part."""
MODEL_DIGITS = 16
"""The same, in the name of a model."""
SAVED = re.compile(r"[/\\]models[/\\][0-9a-f]{16}[/\\][^/\\]+$")
"""The end of the path of a saved model (given_models.py)."""

_TABLE: dict[str, Any] = {}
_ORIGINALS: dict[str, Any] = {}
"""Instances of which the table has a copy. They live on: names hold the numbers of what cannot be read in them."""


def is_live(name: object) -> bool:
    """Whether a name is one of this table."""
    return isinstance(name, str) and name.startswith(PREFIX)


def stem(name: str) -> str:
    """What an object is called, without its fingerprint."""
    return name.removeprefix(PREFIX).rpartition("_")[0]


def shown(name: str) -> str:
    """What people call a model or a part: a live one by its class, a saved one by its folder, any other by its name."""
    return stem(name) if is_live(name) else Path(name).name if SAVED.search(name) else name


def told_apart(names: Iterable[str]) -> dict[str, str]:
    """What people call each of several parts: as `shown`, and with the fingerprint where two would be alike."""
    called = {name: shown(name) for name in names}
    alike = Counter(called.values())
    return {name: one if alike[one] == 1 else name.removeprefix(PREFIX) for name, one in called.items()}


def keep_part(kind: str, word: str, value: Any) -> str:
    """As `keep`. Of an instance whose kind are classes a copy enters: its owner may change it while the run goes on.

    Raises:
        UserError: it cannot be copied.
    """
    name = keep(value)
    if _is_instance(kind, value):
        _TABLE[name], _ORIGINALS[name] = copied(value, word), value
    return name


def keep(value: Any, digits: int = DIGITS) -> str:
    """Put an object into the table, and give its name. Equal objects have one name."""
    inner = value
    while isinstance(inner, functools.partial):
        inner = inner.func
    called = re.sub(r"\W+", "", getattr(inner, "__name__", type(inner).__name__)) or "object"
    name = f"{PREFIX}{called}_{fingerprint(value)[:digits]}"
    keep_as(name, value)
    return name


def keep_as(name: str, value: Any) -> None:
    """Put an object into the table under a name that a run's files have."""
    _TABLE[name] = value
    owner = value if isinstance(value, type) else type(value)
    for member in (value, *vars(owner).values()):
        code = getattr(member, "__code__", None)
        if code is not None and "autoprune" not in str(getattr(member, "__module__", "")).split("."):
            usercode.FILES.add(code.co_filename)  # errors there are the user's own


def find(kind: str, word: str, name: str) -> Any:
    """The part called `name`, as the registry gives parts of its kind.

    Args:
        kind: of the part.
        word: for one part of that kind, for messages.
        name: in the table.

    Raises:
        UserError: this process was not given the object.
    """
    if name not in _TABLE:
        again = "model=..." if kind == "models" else "parts=[...]"
        raise UserError(
            f"the {word} '{stem(name) or name}' was given as an object in Python, and this process does not have it: "
            f"give it again, autoprune.resume(RUN, {again}), or give what a file holds, as FILE.py:OBJECT."
        )
    value = _TABLE[name]
    if kind == "models":
        return functools.partial(copied, value, word)
    return _class_of(value, word) if _is_instance(kind, value) else value


def _is_instance(kind: str, value: Any) -> bool:
    """Whether an object stands for a class that makes copies of it."""
    return kind in CLASSES and not (isinstance(value, type | functools.partial) or inspect.isroutine(value))


def origin(name: str) -> str:
    """The class of an object in the table, as `package.module:Class`; the name itself where it is not there."""
    kind = type(_TABLE[name]) if name in _TABLE else None
    return name if kind is None else f"{kind.__module__}:{kind.__qualname__}"


def copied(value: Any, word: str) -> Any:
    """A deep copy of an object.

    Raises:
        UserError: it cannot be copied.
    """
    try:
        return copy.deepcopy(value)
    except Exception as error:  # the user's code, or what no copy can be made of
        raise UserError(
            f"the {word} is a {type(value).__name__} that cannot be copied ({usercode.told(error)}), and a search "
            "changes only copies: give a class or function that makes it, or FILE.py:OBJECT."
        ) from error


def _class_of(value: Any, word: str) -> Any:
    """A class whose objects are copies of `value`: with its members, and those of its port behind them."""
    kind: Any = type(value)

    def new(cls: type) -> Any:
        made = copied(value, word)
        try:
            object.__setattr__(made, "__class__", cls)  # so that the port's members are there too
        except TypeError as error:
            raise UserError(
                f"the {word} {kind.__name__} has __slots__: give its class, or derive it from its port."
            ) from error
        return made

    about = {
        "__new__": new, "__init__": lambda self: None, "__signature__": inspect.Signature(),
        "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__, "__slots__": (),
    }  # fmt: skip
    metaclass: Any = type(kind)
    return metaclass(kind.__name__, (kind,), about)
