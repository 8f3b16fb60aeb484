"""The port of a metric: the cost of a unit at a level.

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
    """The argument of metrics that depend on the whole network.

    Args:
        view: the dense network. It must be left unchanged.
        units: in the order of the network.
        workload: how the network will be used.
        cache: a directory for results that can be reused. It may not exist yet.
        run: the directory of the run, which may have been begun before; None without a run.
        progress: called with the name of a stage and the share of it that is done.
        task: the network's task, which has the forward pass and refuses what it does not support.
        itemsize: bytes of a weight in the checkpoint; None where that is not known.
    """

    view: "BlockView"
    units: Sequence[Unit]
    workload: Workload
    cache: Path
    run: Path | None = None
    progress: Callable[[str, float], None] = lambda stage, share: None
    task: Task = field(kw_only=True)
    itemsize: int | None = None


class Metric(ABC):
    """A metric. Only the call is required. A function `(unit, level, workload)` is a metric with all defaults."""

    @abstractmethod
    def __call__(self, unit: Unit, level: Level, workload: Workload) -> float:
        """The cost of `unit` at one of its levels."""

    @property
    def fixed(self) -> float:
        """The cost that every policy has (embedding, head), part of every total and of the budget. The default is 0."""
        return 0.0

    @property
    def whole(self) -> bool:
        """Whether the total is of the whole network, and not only of what can be pruned. The default is whether there
        is a fixed cost."""
        return self.fixed > 0

    @property
    def measure(self) -> str | None:
        """The unit of measurement in messages, such as `ms`; None (the default) is not shown."""
        return None

    @property
    def peak(self) -> bool:
        """Whether the total is the maximum over the units and the fixed cost (memory). By default it is the sum."""
        return False

    @property
    def notice(self) -> str | None:
        """A sentence for the user before the search begins. The default is none."""
        return None

    @property
    def described(self) -> str:
        """Its name in messages. The default is its function or class, with the place in the user's file."""
        return usercode.located(self)

    def for_network(self, network: Network) -> "Metric":
        """The metric for a network, if it depends on the network or the run. The default returns itself.

        Raises:
            UserError: the metric does not exist for this network.
        """
        return self

    def check_units(self, units: Sequence[Unit]) -> None:
        """Check that every level of the units has a cost, for costs that were measured elsewhere. The default checks
        nothing.

        Raises:
            UserError: a level has no cost.
        """
        return None

    def save(self, directory: Path) -> None:
        """Write measurements to the run's directory, where `for_network` finds them later. The default writes nothing.

        Raises:
            UserError: the disk is full or not writable.
        """
        return None


def of_network(maker: Maker) -> Maker:
    """Mark a function that takes a `Network` and returns a metric."""
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
    """The metric called `name`: registered, from a table, or the user's own function, object or class.

    Raises:
        UserError: it does not exist, cannot be imported, or cannot be called.
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
