"""A task of the user's own, of which nothing that it returns is trusted: what is wrong is told where it is returned."""

import functools
import types
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from autoprune import usercode
from autoprune.errors import UserError
from autoprune.ports.adapting import check_arguments
from autoprune.ports.loss import Loss
from autoprune.ports.task import GraphInput, Prepared, Task
from autoprune.ports.training import TrainingSet

RETURNS: Mapping[str, Any] = {
    "settings": Mapping, "prepare": Prepared, "notices": Iterable, "loss": Loss, "quality": Mapping,
    "training": TrainingSet, "forward_pass": Callable, "macs": Real, "graph_input": GraphInput,
    "evaluate_directory": Mapping,
}  # fmt: skip
"""Method -> what it gives."""


def guarded(part: type[Task]) -> type[Task]:
    """The class of a task with what it declares itself checked; a class of ours is given back as it is.

    Raises:
        UserError: a method takes other arguments than its port says.
    """
    own = [name for name in vars(Task) if _declared_by_user(part, name)]
    for name in own:
        check_arguments(f"the task '{part.__name__}'", getattr(Task, name), getattr(part, name))
    checked: dict[str, Any] = {name: _checked(getattr(part, name), RETURNS[name]) for name in own if name in RETURNS}
    about = {"__module__": part.__module__, "__qualname__": part.__qualname__, "__doc__": part.__doc__}
    made: type[Task] = types.new_class(part.__name__, (part,), exec_body=lambda space: space.update(about | checked))
    return made if checked else part


def _declared_by_user(part: type[Task], name: str) -> bool:
    home = next(base for base in part.__mro__ if name in vars(base))
    return not home.__module__.startswith("autoprune.") and callable(vars(home)[name]) and not name.startswith("_")


def _checked(method: Callable[..., Any], kind: Any) -> Callable[..., Any]:
    @functools.wraps(method)
    def called(self: Task, *args: Any, **kwargs: Any) -> Any:
        given: Any = usercode.call("task's method", method, self, *args, **kwargs)
        right = isinstance(given, kind)
        if not right:
            wanted = "number" if kind is Real else getattr(kind, "__name__", str(kind))
            raise UserError(f"{_told(self, method)} gives {usercode.shown(given)}, which is no {wanted}.")
        if method.__name__ == "quality":
            _check_quality(self, method, given)
        return given

    return called


def _check_quality(task: Task, method: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Measures are plain numbers, and those that tables show are there."""
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UserError(
                f"{_told(task, method)} gives {usercode.shown(value)} as '{key}', which is no plain number."
            )
    missing = [key for key in (task.words.label_loss.key, task.words.quality.key) if key not in given]
    if missing:
        raise UserError(f"{_told(task, method)} gives no '{missing[0]}', which the task's words name.")


def _told(task: Task, method: Callable[..., Any]) -> str:
    return f"the task '{task.name}': its method {usercode.located(method)}"
