"""Adapts parts that do not derive from a port.

A part may be any class with the right methods, or a function if its port has a single call. Members that a part lacks
get the port's defaults. Only this module looks for members.
"""

import inspect
import types
from collections.abc import Callable
from functools import cache
from typing import Any

from autoprune import registry, usercode
from autoprune.errors import UserError


def part_class(port: Any, kind: str, name: str) -> Any:
    """The class of a part, made a subclass of its port.

    Args:
        port: the class that declares what a part may have.
        kind: the kind in the registry.
        name: the name of the part.

    Returns:
        The part itself, or a class that combines the part and its port. For a function, it is a class that calls it.

    Raises:
        UserError: the part cannot be called, or it lacks a required member.
    """
    part = registry.load(kind, name)
    called = f"the {registry.singular(kind)} '{name}'"
    if not callable(part):
        raise UserError(f"{called} is a {type(part).__name__} and cannot be called: it is a class.")
    if not isinstance(part, type):
        try:
            return _of_factory(port, kind, part)
        except ValueError as error:  # a function of Python's own, without a signature
            raise UserError(f"{called} cannot be a {registry.singular(kind)} ({error}): it is a class.") from error
    try:
        found: Any = part if issubclass(part, port) else _declared(port, part)
    except TypeError as error:  # metaclasses that exclude each other
        raise UserError(f"{called} cannot be a subclass of {port.__name__}: {error}.") from error
    if found.__abstractmethods__:
        raise UserError(f"{called} has no method '{min(found.__abstractmethods__)}', which it must have.")
    for method in sorted(port.__abstractmethods__):
        check_arguments(called, getattr(port, method), getattr(found, method))
    return found


def check_arguments(called: str, declared: Any, method: Any) -> None:
    """Raise a UserError unless a method can be called as its port says; what takes any names is checked elsewhere."""
    try:
        asked, takes = inspect.signature(declared), inspect.signature(method)
    except (TypeError, ValueError):  # no function, or one without a signature: the call will tell
        return
    parameters = asked.parameters.values()
    if any(one.kind == one.VAR_KEYWORD for one in parameters):
        return
    needed = [one.name for one in parameters if one.default is one.empty]
    static = inspect.isfunction(method) and "self" not in takes.parameters  # bound when it is called, or never
    try:
        takes.bind(*(needed[1:] if static and len(takes.parameters) < len(needed) else needed))
    except TypeError as error:
        raise UserError(f"{called}: its method '{method.__name__}' takes {takes}, and is given {asked}.") from error


def as_port(port: Any, part: Any) -> Any:
    """An object of the port: the object itself, or a wrapper that delegates to it."""
    return part if isinstance(part, port) else _delegating(port, part)


def has_mark(part: Any, mark: str) -> bool:
    """Whether a decorator has set an attribute of this name on a function."""
    return bool(getattr(part, mark, False))


@cache
def _declared(port: Any, part: Any) -> Any:
    """A class made of a part and its port, whose members stand behind the part's own."""
    about = {"__module__": part.__module__, "__qualname__": part.__qualname__, "__doc__": part.__doc__}
    return types.new_class(part.__name__, (part, port), exec_body=lambda namespace: namespace.update(about))


@cache
def _of_factory(port: Any, kind: str, factory: Callable[..., Any]) -> Any:
    """A class whose objects a function makes."""
    word, signature, needed = registry.singular(kind), inspect.signature(factory), sorted(port.__abstractmethods__)
    way = (
        f"A function that is given as {'an' if word[0] in 'aeiou' else 'a'} {word} is called once to make it: give a "
        f"class with the method{'s' if needed[1:] else ''} {' and '.join(map(repr, needed))}."
    )

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise UserError(f"the {word} {usercode.located(factory)}: {error}. {way}") from error
        found = usercode.call(word, factory, *args, **kwargs)
        lacking = [] if isinstance(found, port) else [method for method in needed if not hasattr(found, method)]
        if lacking:
            shown = f"the {word} {usercode.located(factory)} gives {usercode.shown(found)}"
            raise UserError(f"{shown}, which has no method '{lacking[0]}'. {way}")
        return as_port(port, found)

    about = {"__new__": new, "__doc__": factory.__doc__, "__signature__": signature, "way_out": way}
    made = type(port)(usercode.located(factory), (port,), about | dict.fromkeys(port.__abstractmethods__))
    made.__init__ = factory if inspect.isfunction(factory) else made.__init__  # whose annotations options have
    return made


def _delegating(port: Any, part: Any) -> Any:
    """An object of a port that passes members on to another object; of those that are missing there, the port's."""
    members = [name for name in vars(port) if not name.startswith("_")]
    there: dict[str, Any] = {name: _passed_on(part, name) for name in members if hasattr(part, name)}
    if "__call__" in vars(port):
        there["__call__"] = staticmethod(part)  # no frame of ours in tracebacks
    made = type(port)(type(part).__name__, (port,), there | {"__doc__": type(part).__doc__})
    missing = made.__abstractmethods__
    if missing:
        raise UserError(
            f"{usercode.located(part)} has no method '{min(missing)}', which the port {port.__name__} demands."
        )
    found = made()
    found.__wrapped__ = part  # for its name, place and signature in messages
    return found


def _passed_on(part: Any, name: str) -> property:
    return property(lambda self: getattr(part, name))
