"""What tables say about costs and budgets: the same lines on a terminal, in a report and in a model card.

Parameters and MACs of a table are always those of the whole network. So the bound of a budget on what can be pruned is
shown for the whole network: the part that cannot be pruned is added to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune import live
from autoprune.policy import Cost
from autoprune.wording import OF_UNITS

SCALES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float) -> str:
    """`22.6M`, `1.2k`, `0.5`: three digits and a scale."""
    shown = float(f"{value:.3g}")  # 999,999 is 1M, not 1000k
    for scale, letter in SCALES:
        if abs(shown) >= scale:
            return f"{shown / scale:.3g}{letter}"
    return f"{shown:.3g}"


def amount(value: float, measure: str | None = None) -> str:
    """A number with its unit of measurement: `22.6M`, `12.3 ms`, `1.2 MB`."""
    if measure == "bytes":
        told = number(value)
        return f"{told[:-1]} {told[-1]}B" if told[-1].isalpha() else f"{told} B"
    return number(value) if measure is None else f"{plain(value)} {measure}"


def plain(value: float) -> str:
    """`12.3`, `1,235`: three digits at least, and no scale, for what has a unit of measurement."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


@dataclass(frozen=True)
class CostLine:
    """One line of a table of costs.

    Args:
        metric: its name.
        what: what the numbers are of; empty where only the metric knows.
        dense: the total of the dense network.
        policy: the total under the policy.
        bound: the budget's bound on the total, if there is one.
        measure: the unit of measurement, if there is one.
    """

    metric: str
    what: str
    dense: float
    policy: float
    bound: float | None
    measure: str | None

    @property
    def name(self) -> str:
        """The name of the line: `params, whole network`."""
        return ", ".join(filter(None, (live.shown(self.metric), self.what)))


def cost_lines(costs: Mapping[str, Cost]) -> list[CostLine]:
    """The lines of a table of costs. Params and macs have one for the whole network, and one for what can be pruned."""
    lines = []
    for metric, cost in costs.items():
        if cost.network is not None:
            total = cost.network
            lines.append(CostLine(metric, WHOLE, total.dense, total.policy, _whole_bound(cost), cost.measure))
        if cost.network is None or not _of_model(cost):
            what = PRUNABLE if metric in OF_UNITS and not _of_model(cost) else WHOLE if _of_model(cost) else ""
            lines.append(CostLine(metric, what, cost.dense, cost.policy, cost.budget, cost.measure))
    return lines


@dataclass(frozen=True)
class Budget:
    """A budget as tables show it.

    Args:
        metric: its name.
        bound: on the total of the whole network for params and macs, if that is known; on the metric's own otherwise.
        measure: the unit of measurement, if there is one.
        told: what it bounds, in a sentence.
    """

    metric: str
    bound: float
    measure: str | None
    told: str

    @property
    def column(self) -> str:
        """The head of its column: `latency (ms)`. A file's name stands without its folders."""
        if live.is_live(self.metric):
            return (
                live.shown(self.metric)
                if self.measure in (None, "bytes")
                else f"{live.shown(self.metric)} ({self.measure})"
            )
        name = Path(self.metric.rpartition(":")[2] if ":" in self.metric else self.metric).name
        return name if self.measure in (None, "bytes") else f"{name} ({self.measure})"

    def cell(self, value: float | None) -> str:
        """A number of its column."""
        if value is None:
            return ""
        return amount(value, self.measure) if self.measure in (None, "bytes") else plain(value)


def budgets_in(costs: Mapping[str, Cost]) -> list[Budget]:
    """The budgets among costs."""
    return [
        Budget(metric, cost.budget if bound is None else bound, cost.measure, _told(metric, cost, cost.budget, bound))
        for metric, cost in costs.items()
        if cost.budget is not None
        for bound in [_whole_bound(cost)]
    ]


def other_budgets(costs: Mapping[str, Cost]) -> list[Budget]:
    """The budgets that need a column of their own: params and MACs have one in every table."""
    return [one for one in budgets_in(costs) if one.metric not in OF_UNITS]


def bound_cells(costs: Mapping[str, Cost]) -> list[str]:
    """The bounds below the columns of params, MACs and other budgets; empty without a budget."""
    budgets = {one.metric: one for one in budgets_in(costs)}
    if not budgets:
        return []
    kinds = [budgets.get(metric) for metric in OF_UNITS]
    return ["" if one is None else one.cell(one.bound) for one in [*kinds, *other_budgets(costs)]]


def budgets_asked(budgets: Mapping[str, float], of: str) -> str:
    """Configured budgets in words: `params at most 50 % of what can be pruned, latency at most 12`."""
    return ", ".join(
        f"{live.shown(metric)} {_bound(bound)}{_of(metric, bound, of)}" for metric, bound in budgets.items()
    )


WHOLE, PRUNABLE = "whole network", "what can be pruned"


def _bound(bound: float) -> str:
    if bound < 0:
        return f"at least {number(-bound)} less"
    return f"at most {100 * bound:.4g} %" if bound <= 1 else f"at most {number(bound)}"


def _of(metric: str, bound: float, of: str) -> str:
    if metric not in OF_UNITS:
        return " of dense" if 0 < bound <= 1 else ""
    return " of the whole network" if of == "model" else " of what can be pruned"


def _of_model(cost: Cost) -> bool:
    return cost.of == "model"


def _whole_bound(cost: Cost) -> float | None:
    """The bound on the whole network's total; None without a budget, or where that total is not known."""
    if cost.budget is None or cost.network is None:
        return None
    if _of_model(cost):
        return cost.budget
    return min(cost.budget, cost.dense) + cost.network.dense - cost.dense


def _told(metric: str, cost: Cost, bound: float, whole: float | None) -> str:
    dense = amount(cost.dense, cost.measure)
    share = f", {bound / cost.dense:.1%}" if cost.dense else ""
    told = f"{live.shown(metric)} at most {amount(bound, cost.measure)}{share} of the"
    nothing = " It bounds nothing." if bound >= cost.dense else ""
    if _of_model(cost):
        return f"{told} whole network's {dense}{' (--of model)' if metric in OF_UNITS else ''}.{nothing}"
    if metric not in OF_UNITS:
        return f"{told} dense network's {dense}.{nothing}"
    rest = f": {number(whole)} of the whole {number(cost.network.dense)}" if whole and cost.network else ""
    return f"{told} {dense} that can be pruned (--of prunable){rest}.{nothing}"
