"""Chooses the task of a network, and reads the words of a task from files."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from autoprune import registry, usercode
from autoprune.errors import UserError
from autoprune.ports.task import Task
from autoprune.task_guard import guarded
from autoprune.wording import Measure, Words

DEFAULT = next(iter(registry.PARTS["tasks"]))
"""The first task takes networks that no other task claims, and files that were written before tasks existed."""


def load_task(name: str) -> Task:
    """The task called `name`: registered, plugged in, `package.module:Object` or `file.py:Object`.

    Raises:
        UserError: the task does not exist, is not a subclass of `Task`, or lacks members.
    """
    part = registry.load("tasks", name)
    if not (isinstance(part, type) and issubclass(part, Task)):
        raise UserError(f"the task '{name}' is no subclass of autoprune.ports.task.Task.")
    missing = [*sorted(part.__abstractmethods__), *(one for one in ("name", "words") if not hasattr(part, one))]
    if missing:
        raise UserError(f"the task '{name}' lacks {', '.join(missing)} (autoprune/ports/task.py says what they are).")
    if not (isinstance(part.name, str) and part.name and isinstance(part.words, Words)):
        raise UserError(f"the task '{name}' has a `name` that is no text, or `words` that are no Words (wording.py).")
    task: Task = usercode.call("task", guarded(part))
    return task


def task_of(name: str | None, model: object) -> Task:
    """The configured task, otherwise the first registered task that claims the model, otherwise the default.

    Args:
        name: name of the task; None if none is configured.
        model: the model as in a configuration.

    Raises:
        UserError: there is no such task.
    """
    if name is not None:
        return load_task(name)
    others = (load_task(other) for other in registry.names("tasks") if other != DEFAULT)
    return next((task for task in others if task.claims(model)), None) or load_task(DEFAULT)


def words_of(record: Mapping[str, Any]) -> Words:
    """The words of a file's task: its `words`, or those of the built-in task of that name. User code is not run.

    Args:
        record: the content of the file. Older files lack `task`, or `words`, or both.

    Raises:
        ValueError: the words are damaged or of another task, or they are missing and the task is not built in.
    """
    name, known = record.get("task", DEFAULT), built_in()
    if record.get("words") is None:
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"nothing says what things are called in the task {name!r}")
        return known[name]
    try:
        words = TypeAdapter(Words).validate_python(record["words"])
    except ValidationError as error:
        raise ValueError(f"its words are damaged: {error.errors()[0]['msg']}") from error
    if words.task != record.get("task", words.task):
        raise ValueError(f"its task is {name!r}, and its words are of {words.task!r}")
    return words


@cache
def built_in() -> dict[str, Words]:
    """The words of the built-in tasks, by name."""
    return {name: load_task(name).words for name in registry.PARTS["tasks"]}


def measure(key: str, words: Words | None = None) -> Measure:
    """The description of a measured number, from the words of its task or otherwise of the built-in tasks.

    Args:
        key: the key in a file.
        words: words of the task; None if the file does not name a task.
    """
    known = {key: one for task in built_in().values() for key, one in task.known.items()}
    known |= words.known if words is not None else {}
    return known.get(key) or Measure(key, key.replace("_", " "), better=0)
