"""Computes the costs of every level of every unit from a metric, and checks every value that the metric returns.

autoprune/ports/metric.py says what a metric is. One that must see the network is made by a function with the decorator
`of_network`, called once with a `Network`.

A function whose second parameter is not called `level` gets the number of groups kept: `(unit, kept, workload)`. Such a
function only counts levels of the form `groups`.
"""

import inspect
import math
import reprlib
from collections.abc import Sequence
from numbers import Real
from typing import Any

from autoprune import usercode
from autoprune.errors import UserError
from autoprune.level import GROUPS, Level, form_of
from autoprune.ports.metric import FORM, Metric, Network, load_metric, of_network
from autoprune.space import Unit
from autoprune.steps import rises
from autoprune.workload import Workload

__all__ = ["Network", "cost_rows", "fixed_cost", "metric_of", "of_network"]


def metric_of(name: str, network: Network) -> Metric:
    """The metric called `name`, made for a network where it must see it.

    Raises:
        UserError: as `cost_rows`, and what its maker raises.
    """
    return load_metric(name).for_network(network)


def fixed_cost(name: str, metric: Metric | None = None) -> float:
    """The cost that every policy has. The metric is given as in `cost_rows`.

    Raises:
        UserError: it is not a finite number of at least 0.
    """
    value: Any = (metric or load_metric(name)).fixed
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise UserError(f"the budget '{name}' has the fixed cost {_shown(value)}: it is a finite number of at least 0.")
    return float(value)


def cost_rows(name: str, units: Sequence[Unit], workload: Workload, metric: Metric | None = None) -> list[list[float]]:
    """The metric called `name` at every level of every unit: for each unit, the cost of each of `unit.levels`.

    Args:
        name: a name, `package.module:Object`, `file.py:Object` or the path of a table.
        units: in the order of the network.
        workload: what the network will be run on.
        metric: what `metric_of` returned; None loads it by name.

    Raises:
        UserError: the metric does not exist, is not a function of a unit, a level and the workload, or raises an
            exception; a cost is not a finite number of at least 0; a level costs more than a denser one; the total
            is 0; or a table lacks a level.
    """
    metric = metric or load_metric(name)
    _check_form(metric)
    metric.check_units(units)
    by_number = counts_groups(metric)
    rows = [[_cost(metric, by_number, unit, level, workload) for level in unit.levels] for unit in units]
    for unit, row in zip(units, rows, strict=True):
        _check_order(metric, unit, row)
    dense = sum(row[0] for row in rows)
    if not 0 < dense < math.inf:
        raise UserError(
            f"the budget {metric.described} gives {dense:g} for the dense network, all groups of "
            f"{len(units)} units kept: there is nothing to bound unless that is a finite number above 0."
        )
    return rows


def counts_groups(metric: Metric) -> bool:
    """Whether a metric takes the number of groups kept instead of a level, as metrics of earlier versions did."""
    try:
        second = list(inspect.signature(metric).parameters.values())[1]
    except (TypeError, ValueError, IndexError):  # some builtins have no signature
        return True
    annotation = str(getattr(second.annotation, "__name__", second.annotation))
    return second.name != "level" and annotation.split(".")[-1] != Level.__name__


def _check_form(metric: Metric) -> None:
    try:
        signature = inspect.signature(metric)
    except (TypeError, ValueError):  # some builtins have none: the call will tell
        return
    try:
        signature.bind(None, None, None)
    except TypeError as error:
        raise UserError(f"the budget {metric.described} takes {signature}: {FORM}.") from error


def _cost(metric: Metric, by_number: bool, unit: Unit, level: Level, workload: Workload) -> float:
    if by_number and level.form != GROUPS:
        raise UserError(
            f"the budget {metric.described} counts groups kept, and the unit {unit.name} has the level "
            f"{level.name}: {FORM}."
        )
    value = usercode.call("budget", metric, unit, level.kept if by_number else level, workload)
    given = f"the budget {metric.described} gives"
    where = f"for unit {unit.name} at {_told(unit, level)}"
    if isinstance(value, bool) or not isinstance(value, Real):  # NumPy's scalars are Real, its arrays and bools not
        raise UserError(f"{given} {_shown(value)} (a {_type(value)}) {where}: a cost is one plain number.")
    try:
        cost = float(value)
    except OverflowError:  # an integer beyond any float
        cost = math.inf
    if not (math.isfinite(cost) and cost >= 0):
        raise UserError(f"{given} {_shown(value)} {where}: a cost is a finite number of at least 0.")
    return cost


def _check_order(metric: Metric, unit: Unit, row: Sequence[float]) -> None:
    pair = rises(unit.levels, row)
    if pair is not None:
        denser, sparser = (unit.levels[level] for level in pair)
        raise UserError(
            f"the budget {metric.described} gives {row[pair[0]]:g} for unit {unit.name} at {_told(unit, denser)}, and "
            f"{row[pair[1]]:g} at {form_of(sparser).short(sparser)}: a level may not cost more than a denser one."
        )


def _told(unit: Unit, level: Level) -> str:
    return form_of(level).told(level, unit.groups, unit.kind)


def _type(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _shown(value: object) -> str:
    return " ".join(reprlib.repr(value).split())  # short, and on one line
