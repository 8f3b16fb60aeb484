"""Peak bytes of activations that are alive at the same time in a forward pass, without weights and inputs.

Every tensor that a pass makes is counted until nothing refers to it any more (alive.py): hidden states, intermediate
results of a block, what a shortcut holds, and attention scores if they are stored. It is measured on one item (an
image) and multiplied by `workload.batch`.

Units reach their peaks one after another. So the cost of a unit at a level is the peak of a network in which it is at
that level and all other units are at their least. The peak of a policy is the maximum of these costs. No cost is lower
than the peak with all units at their least (stem, hidden states, head).

Shapes: U units.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

import torch

from autoprune.budgets.alive import peak_bytes
from autoprune.budgets.latency import checks, classes_in, dense_afterwards, place
from autoprune.errors import UserError
from autoprune.level import Key, Level, form_of
from autoprune.ports.metric import Metric, Network, of_network
from autoprune.space import Unit
from autoprune.workload import Workload

One = TypeVar("One", bound=Hashable)

STAGE = "measuring activations"
TOLERANCE = 0.01  # what a whole network may be above its units before the user is warned


@dataclass(frozen=True)
class Peaks(Metric):
    """Bytes of one item.

    Args:
        least: bytes of a pass with every unit at its least.
        of_unit: name -> key of a level (level.py) -> bytes of a pass with this unit at it and all others
            at their least.
        batch: number of items in a pass.
        above: the largest share by which a whole network exceeded the maximum over its units.
    """

    least: int
    of_unit: Mapping[str, Mapping[Key, int]]
    batch: int
    above: float

    measure = "bytes"
    described = "'activation'"
    whole = True
    peak = True

    @property
    def fixed(self) -> int:
        """The bytes that every policy needs."""
        return self.batch * self.least

    @property
    def dense(self) -> int:
        """The bytes of the dense network."""
        return self.batch * max(max(row.values()) for row in self.of_unit.values())

    @property
    def notice(self) -> str:
        """How much can be saved, and a warning if units are alive at the same time."""
        if self.above <= TOLERANCE:
            return (
                f"activation: of the dense network {self.dense:,} bytes are alive at once with batches of "
                f"{self.batch}, {self.fixed:,} at the least."
            )
        return (
            "warning: activation: units of this network are alive at the same time, so it needs up to "
            f"{100 * self.above:.1f} % more than the budget's cost says."
        )

    def __call__(self, unit: Unit, level: Level, workload: Workload) -> int:
        """Bytes with a unit at one of its levels.

        Raises:
            UserError: it was not measured.
        """
        found = self.of_unit.get(unit.name, {}).get(level.key)
        if found is None:
            at = form_of(level).told(level, unit.groups, unit.kind)
            raise UserError(f"activation was not measured for unit {unit.name} at {at}, only at its levels.")
        return self.batch * found


@of_network
def activation(network: Network) -> Peaks:
    """Measure every level of every unit.

    Raises:
        UserError: the task does not support it, or the workload has another dtype than the network.
    """
    view, units, workload = network.view, network.units, network.workload
    network.task.require("activation")
    dtype = str(next(view.model.parameters()).dtype).removeprefix("torch.")
    if workload.dtype not in (None, dtype):
        raise UserError(f"activation is measured in the search's dtype, {dtype}: set dtype={workload.dtype}.")
    one = network.task.forward_pass(view, Workload(workload.context))
    least_U = tuple(unit.levels[-1] for unit in units)

    @cache
    def peak(levels_U: tuple[Level, ...]) -> int:
        place(view, levels_U)
        return peak_bytes(one)

    def alone(u: int, level: Level) -> int:
        return peak((*least_U[:u], level, *least_U[u + 1 :]))

    of_unit: dict[str, dict[Key, int]] = {}
    with torch.no_grad(), dense_afterwards(view):
        for u, unit in enumerate(units):
            network.progress(STAGE, u / len(units))
            costs = levels(unit.levels[::-1], partial(alone, u))
            of_unit[unit.name] = {level.key: cost for level, cost in costs.items()}
        whole = [tuple(levels_U) for levels_U in checks(units, classes_in(network)).values()]
        above = max(peak(levels_U) / _largest(of_unit, units, levels_U) for levels_U in whole) - 1
        network.progress(STAGE, 1.0)
        return Peaks(peak(least_U), of_unit, workload.batch, above)


def levels(ascending: Sequence[One], peak: Callable[[One], int]) -> dict[One, int]:
    """What each of a unit's levels costs, no denser one less; between two that cost the same nothing is measured."""
    costs = {level: peak(level) for level in dict.fromkeys([ascending[0], ascending[-1]])}

    def between(low: int, high: int) -> None:
        if high - low < 2:
            return
        if costs[ascending[low]] == costs[ascending[high]]:
            costs.update(dict.fromkeys(ascending[low:high], costs[ascending[low]]))
            return
        middle = (low + high) // 2
        costs[ascending[middle]] = peak(ascending[middle])
        between(low, middle)
        between(middle, high)

    between(0, len(ascending) - 1)
    highest = 0
    for level in ascending:
        costs[level] = highest = max(highest, costs[level])
    return costs


def _largest(of_unit: Mapping[str, Mapping[Key, int]], units: Sequence[Unit], levels_U: Sequence[Level]) -> int:
    return max(of_unit[unit.name][level.key] for unit, level in zip(units, levels_U, strict=True))
