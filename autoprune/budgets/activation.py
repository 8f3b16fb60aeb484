"""Bytes of activations that are alive at once in a forward pass, at its fullest moment, beside weights and inputs.

Counted is every tensor that a pass of the network makes as it runs here, module after module, until nothing refers to
it any more (alive.py): hidden states, what a block computes inside, what a shortcut holds, scores where attention
writes them. It is measured on one item (an image), and `workload.batch` of them take as many times that.

Units are at their fullest one after another. So what a unit costs at a level is the peak of a network in which it is at
that level and every other unit at its least; the peak of a policy is the largest of these. A block that is dropped, or
kept at its least, costs at least its input and output; less than the network's least of all units (stem, hidden states,
head) nothing can cost.

Shapes: U units.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch

from autoprune.budgets.alive import peak_bytes
from autoprune.budgets.latency import checks, classes_in, dense_afterwards, place
from autoprune.errors import UserError
from autoprune.ports.metric import Metric, Network, of_network
from autoprune.space import Unit
from autoprune.workload import Workload

STAGE = "measuring activations"
TOLERANCE = 0.01  # what a whole network may be above its units before the user is warned


@dataclass(frozen=True)
class Peaks(Metric):
    """Bytes of one item.

    Args:
        least: of a pass in which every unit is at its least.
        of_unit: name -> groups kept -> bytes of a pass with this unit so and all others at their least.
        batch: items of a pass.
        above: by how much whole networks were above what their units say, at most, as a share.
    """

    least: int
    of_unit: Mapping[str, Mapping[int, int]]
    batch: int
    above: float

    measure = "bytes"
    described = "'activation'"
    peak = True

    @property
    def fixed(self) -> int:
        """What is needed whatever the policy."""
        return self.batch * self.least

    @property
    def dense(self) -> int:
        """What is needed where every unit is whole."""
        return self.batch * max(max(row.values()) for row in self.of_unit.values())

    @property
    def notice(self) -> str:
        """What there is to save; and a warning where units are alive at the same time."""
        if self.above <= TOLERANCE:
            return (
                f"activation: of the dense network {self.dense:,} bytes are alive at once with batches of "
                f"{self.batch}, {self.fixed:,} at the least."
            )
        return (
            "warning: activation: units of this network are alive at the same time, so it needs up to "
            f"{100 * self.above:.1f} % more than the budget's cost says."
        )

    def __call__(self, unit: Unit, kept: int, workload: Workload) -> int:
        """Bytes with `kept` groups of a unit, one of its levels.

        Raises:
            UserError: it was not measured.
        """
        found = self.of_unit.get(unit.name, {}).get(kept)
        if found is None:
            raise UserError(f"activation was not measured for unit {unit.name} at {kept} groups, only at its levels.")
        return self.batch * found


@of_network
def activation(network: Network) -> Peaks:
    """Measure every level of every unit.

    Raises:
        UserError: the task does not support it, or the network would be used in another dtype.
    """
    view, units, workload = network.view, network.units, network.workload
    network.task.require("activation")
    dtype = str(next(view.model.parameters()).dtype).removeprefix("torch.")
    if workload.dtype not in (None, dtype):
        raise UserError(f"activation is measured in the search's dtype, {dtype}: set dtype={workload.dtype}.")
    one = network.task.forward_pass(view, Workload(workload.context))
    least_U = tuple(min(unit.kept) for unit in units)

    @cache
    def peak(kept_U: tuple[int, ...]) -> int:
        place(view, kept_U)
        return peak_bytes(one)

    def alone(u: int, kept: int) -> int:
        return peak((*least_U[:u], kept, *least_U[u + 1 :]))

    of_unit: dict[str, dict[int, int]] = {}
    with torch.no_grad(), dense_afterwards(view):
        for u, unit in enumerate(units):
            network.progress(STAGE, u / len(units))
            of_unit[unit.name] = levels(unit.kept[::-1], partial(alone, u))
        whole = [tuple(kept_U) for kept_U in checks(units, classes_in(network)).values()]
        above = max(peak(kept_U) / _largest(of_unit, units, kept_U) for kept_U in whole) - 1
        network.progress(STAGE, 1.0)
        return Peaks(peak(least_U), of_unit, workload.batch, above)


def levels(ascending: Sequence[int], peak: Callable[[int], int]) -> dict[int, int]:
    """What each of a unit's levels costs, no denser one less; between two that cost the same nothing is measured."""
    costs = {kept: peak(kept) for kept in {ascending[0], ascending[-1]}}

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
    for kept in ascending:
        costs[kept] = highest = max(highest, costs[kept])
    return costs


def _largest(of_unit: Mapping[str, Mapping[int, int]], units: Sequence[Unit], kept_U: Sequence[int]) -> int:
    return max(of_unit[unit.name][kept] for unit, kept in zip(units, kept_U, strict=True))
