"""Which task a network is of, and the words that files have for it."""

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
"""What nobody else claims is of the first task; so are files that were written before there were tasks."""


def load_task(name: str) -> Task:
    """The task called `name`: registered, plugged in, `package.module:Object` or `file.py:Object`.

    Raises:
        UserError: there is no such task, or the object is no subclass of `Task`, or it lacks members.
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
    """The task that is configured, or else the first registered one that claims the model, or else the default.

    Args:
        name: of the task; None where none is configured.
        model: as a configuration names it.

    Raises:
        UserError: there is no such task.
    """
    if name is not None:
        return load_task(name)
    others = (load_task(other) for other in registry.names("tasks") if other != DEFAULT)
    return next((task for task in others if task.claims(model)), None) or load_task(DEFAULT)


def words_of(record: Mapping[str, Any]) -> Words:
    """The words of a file's task: its `words`, or those of our own task of that name. No code of a user's is run.

    Args:
        record: the file. One without a `task` is older than tasks, one without `words` is older than words.

    Raises:
        ValueError: the words are damaged or of another task, or there are none and the task is not one of ours.
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
    """The words of our own tasks, by name."""
    return {name: load_task(name).words for name in registry.PARTS["tasks"]}


def measure(key: str, words: Words | None = None) -> Measure:
    """What is known of a measured number: from the words of its task, or else from those of our own tasks.

    Args:
        key: as a file has it.
        words: of the task; None where a file does not say which task it is of.
    """
    known = {key: one for task in built_in().values() for key, one in task.known.items()}
    known |= words.known if words is not None else {}
    return known.get(key) or Measure(key, key.replace("_", " "), better=0)
