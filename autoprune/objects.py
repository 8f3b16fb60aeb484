"""Names for parts that are given in Python as objects: classes, functions and instances.

What can be imported is named as a file of settings would name it: `evolution`, `package.module:Object` or
`FILE.py:Object`. Anything else enters the table of live objects (live.py).
"""

import dataclasses
import os
import sys
import types
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from autoprune import live, registry
from autoprune.errors import UserError

KINDS = {"agent": "agents", "reward": "rewards", "criterion": "criteria", "loss": "losses", "task": "tasks"}
"""Settings that take a part -> the kind of the part."""
OPTIONS = {"reward": "rewards", "callback": "callbacks"}
"""The same for settings of agents."""
NO_PARTS = (dict, list, tuple, set, frozenset, bytes, bytearray, bool, int, float, complex, types.ModuleType)


def named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which every part that is an object has a name instead.

    Args:
        settings: as `load_config` takes them. Those without objects come back as they are.

    Raises:
        UserError: an object is no part, or a setting of an agent is nothing that a file can hold.
    """
    found = dict(settings)
    for key, kind in KINDS.items():
        if _is_object(found.get(key)):
            found[key] = name_of(kind, found[key])
    if _is_object(found.get("budgets")) and callable(found["budgets"]):
        metric = getattr(found["budgets"], "__name__", type(found["budgets"]).__name__)
        raise UserError(f"the metric {metric} needs its bound: budgets={{{metric}: 0.5}}.")
    if isinstance(found.get("budgets"), Mapping):
        pairs = found["budgets"].items()
        found["budgets"] = {name_of("budgets", key) if _is_object(key) else key: bound for key, bound in pairs}
    for key, value in found.items():
        head, _, inside = key.partition(".")
        if head == "agent_options":
            found[key] = _option(inside, value) if inside else _options(value)
        elif head == "reward_options":
            found[key] = _option(inside, value, head)
    if dataclasses.is_dataclass(settings.get("agent")):
        found |= _as_class(settings["agent"], found)
    return found


def name_of(kind: str, value: Any) -> str:
    """The name of a part that is an object; a text is its own name.

    Raises:
        UserError: it is nothing that a part can be.
    """
    if isinstance(value, str):
        return value
    word = registry.singular(kind)
    if value is None or isinstance(value, NO_PARTS):
        raise UserError(
            f"the {word} {str(value)[:100]!r} is of the type {type(value).__name__}: give a name from `autoprune list "
            f"{kind}`, 'package.module:Object', a class, a function or an instance."
        )
    return importable(kind, value) or live.keep_part(kind, word, value)


def names_of(kind: str, values: Any) -> list[str]:
    """The names of several parts: a list of names and objects, a text with commas, or one object.

    Raises:
        UserError: one is nothing that a part can be.
    """
    if isinstance(values, str):
        return [name.strip() for name in values.split(",")]
    many = isinstance(values, Iterable) and not isinstance(values, type) and not callable(values)
    return [name_of(kind, value) for value in (values if many else [values])]


def importable(kind: str, value: Any) -> str | None:
    """The name by which another process finds a class or function; None where it finds none."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    home = sys.modules.get(module or "__main__")
    if module in (None, "__main__") or isinstance(value, types.MethodType) or not isinstance(name, str):
        return None
    if getattr(home, name, None) is not value:  # a name with a dot is never found
        return None
    own = f"{module}:{name}"
    registered = {target: known for known, target in registry.PARTS[kind].items()}
    if own in registered:
        return registered[own]
    is_file = str(module).startswith("_autoprune_file_")
    return f"{getattr(home, '__file__', '')}:{name}" if is_file else own


def give_again(parts: Iterable[Any], needed: Iterable[str]) -> None:
    """Put the objects of a run into this process's table again.

    Args:
        parts: the objects.
        needed: names that the run's files have.

    Raises:
        UserError: the run uses none of that name.
    """
    wanted = [name for name in needed if live.is_live(name)]
    for part in parts:
        name = live.keep(part)
        if name in wanted:
            continue
        like = [one for one in wanted if live.stem(one) == live.stem(name)]
        if len(like) != 1:
            has = ", ".join(map(live.stem, wanted)) or "none"
            raise UserError(f"the run was not begun with the object {live.stem(name)}: it needs {has} in parts=[...].")
        live.keep_as(like[0], part)
        warnings.warn(
            f"the object {live.stem(name)} is not as it was when the run was begun: its code or its settings differ.",
            UserWarning, stacklevel=3,
        )  # fmt: skip


def live_names(settings: Mapping[str, Any]) -> list[str]:
    """Names of live objects in the settings of a run, but not its model."""
    options = settings.get("agent_options") or {}
    given = [*map(settings.get, KINDS), *map(options.get, OPTIONS), *settings["budgets"]]
    return [str(name) for name in given if live.is_live(name)]


def check_sent(settings: Mapping[str, Any]) -> None:
    """Refuse settings that worker processes cannot read.

    Raises:
        UserError: the loss or the task is a live object.
    """
    for key in ("loss", "task"):
        if live.is_live(settings[key]):
            raise UserError(
                f"the {key} {live.stem(settings[key])} is an object of this process, which workers do not have: put it "
                f"into a file and give {key}='FILE.py:{live.stem(settings[key])}', or leave workers and ray_address."
            )


def _is_object(value: Any) -> bool:
    return value is not None and not isinstance(value, str | os.PathLike)


def _options(options: Any) -> Any:
    """Settings of an agent, or in a comparison of several: agent -> settings."""
    if not isinstance(options, Mapping):
        return options  # the record tells of it
    plain = (str, *NO_PARTS)  # the record tells of those that are no texts
    return {
        key if isinstance(key, plain) else name_of("agents", key): _option(str(key), options[key]) for key in options
    }


def _option(name: str, value: Any, setting: str = "agent_options") -> Any:
    """One of them, made of what YAML holds."""
    last = name.rpartition(".")[2]
    if last in OPTIONS and _is_object(value) and not isinstance(value, Mapping):
        return name_of(OPTIONS[last], value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _option(str(key), one, setting) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_option(name, one, setting) for one in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a number of NumPy or torch
        return value.item()
    if value is not None and not isinstance(value, bool | int | float | str):
        raise UserError(
            f"{setting}{'.' if name else ''}{name} is of the type {type(value).__name__}, and the file of a run holds "
            "texts, numbers, lists and mappings of them."
        )
    return value


def _as_class(agent: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """An agent that is an instance of a dataclass: the class, and the fields that differ from its defaults as settings.

    Empty where the fields are nothing that a file holds: the instance itself is then kept.
    """
    if isinstance(agent, type):
        return {}
    if found.get("agent_options"):
        raise UserError(
            f"the agent is an instance of {type(agent).__name__}, which has its settings already: leave agent_options, "
            "or give the class."
        )
    fields = [field for field in dataclasses.fields(agent) if field.init]
    own = {}
    for field in fields:
        value = getattr(agent, field.name)
        usual = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if usual is dataclasses.MISSING or value != usual:
            own[field.name] = value
    try:
        options = _options(own)
    except UserError:
        return {}
    return {"agent": name_of("agents", type(agent)), "agent_options": options}
