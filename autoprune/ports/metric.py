"""The port of a metric: what a unit costs at a level, in whatever the metric counts.

Costs add over units, are at least 0, and never grow from a level to the next (autoprune/budgets/metric.py checks this).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from autoprune import registry, usercode
from autoprune.errors import UserError
from autoprune.level import Level
from autoprune.ports.adapting import as_port, has_mark
from autoprune.ports.task import Task
from autoprune.space import Unit
from autoprune.workload import Workload

if TYPE_CHECKING:
    from autoprune.networks.blocks import BlockView

Maker = TypeVar("Maker", bound=Callable[..., Any])

FORM = "a metric is a function (unit, level, workload) -> cost"


@dataclass(frozen=True)
class Network:
    """What a metric that must see the network is shown.

    Args:
        view: the dense network; it is to be left as it was.
        units: in the order of the network.
        workload: what the network will be run on.
        cache: a directory for what may be used again, which need not exist.
        run: the directory of a run that may have been begun before; None where there is none.
        progress: is told the name of a stage and how much of it is done.
        task: what the network reads: gives its forward pass, and refuses what it does not support.
    """

    view: "BlockView"
    units: Sequence[Unit]
    workload: Workload
    cache: Path
    run: Path | None = None
    progress: Callable[[str, float], None] = lambda stage, share: None
    task: Task = field(kw_only=True)


class Metric(ABC):
    """A metric. Only the call must be there; a function `(unit, level, workload)` is a metric with all defaults."""

    @abstractmethod
    def __call__(self, unit: Unit, level: Level, workload: Workload) -> float:
        """What `unit` costs at one of its levels."""

    @property
    def fixed(self) -> float:
        """What is paid whatever the policy, a part of every total and of the budget (embedding, head); by default 0."""
        return 0.0

    @property
    def measure(self) -> str | None:
        """What it counts in, for messages, as `ms`; None, the default, is not told."""
        return None

    @property
    def peak(self) -> bool:
        """Whether the largest of the units' costs and what is fixed counts (memory). By default their sum does."""
        return False

    @property
    def notice(self) -> str | None:
        """A sentence for the user before the search begins; by default none."""
        return None

    @property
    def described(self) -> str:
        """How messages name it, by default after its function or class, with the place in the user's file."""
        return usercode.located(self)

    def for_network(self, network: Network) -> "Metric":
        """The metric of a network, where it must see the network or the run; by default it need not.

        Raises:
            UserError: it cannot be had of this network.
        """
        return self

    def check_units(self, units: Sequence[Unit]) -> None:
        """See that every level of the units has a cost, where they were measured elsewhere. By default they have.

        Raises:
            UserError: some lack theirs.
        """
        return None

    def save(self, directory: Path) -> None:
        """Write what it knows to the run's directory, where `for_network` finds it later; by default nothing.

        Raises:
            UserError: the disk is full or not writable.
        """
        return None


def of_network(maker: Maker) -> Maker:
    """Says that a function takes a `Network` and returns a metric, and is none itself."""
    vars(maker)["of_network"] = True
    return maker


class _OfNetwork(Metric):
    """A function that makes the metric of a network."""

    def __init__(self, maker: Callable[[Network], Any]) -> None:
        self.__wrapped__ = maker  # for its name, place and signature in messages

    def for_network(self, network: Network) -> Metric:
        """What the function returns."""
        return _as_metric(self.described, usercode.call("budget", self.__wrapped__, network))

    def __call__(self, unit: Unit, level: Level, workload: Workload) -> float:
        raise AssertionError("made for no network yet")


def load_metric(name: str) -> Metric:
    """The metric called `name`: of the registry, of a table, or the user's own, be it a function, an object or a class.

    Raises:
        UserError: there is none, it cannot be imported, or it cannot be called.
    """
    part = registry.load("budgets", name)
    if isinstance(part, type) and issubclass(part, Metric):
        part = usercode.call("budget", part)
    return _OfNetwork(part) if has_mark(part, "of_network") else _as_metric(f"'{name}'", part)


def _as_metric(called: str, part: Any) -> Metric:
    if not callable(part):
        kind = type(part)
        shown = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        raise UserError(f"the budget {called} is a {shown} and cannot be called: {FORM}.")
    metric: Metric = as_port(Metric, part)
    return metric
