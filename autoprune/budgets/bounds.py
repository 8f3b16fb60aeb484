"""Bounds in absolute numbers, and the costs of units as parts of the whole network.

A configured bound up to 1 is a share of dense, a larger one is absolute, and a negative one says how much is removed
(autoprune/written.py). With `of=model` the bounds on params and macs are of the whole network: units then have the cost
of everything that leaves with them, and the rest of the network is the fixed cost that every policy has.
"""

from collections.abc import Sequence

from autoprune.errors import UserError
from autoprune.space import Unit


def absolute_bound(metric: str, bound: float, dense: float, of_model: bool = False) -> float:
    """The bound on a total.

    Args:
        metric: its name, for the message.
        bound: as configured.
        dense: the total of the dense network.
        of_model: whether the total is that of the whole network, for the message.

    Raises:
        UserError: more is to be removed than there is.
    """
    if bound > 0:
        return bound * dense if bound <= 1 else bound
    if -bound >= dense:
        where = "in the whole network" if of_model else "that can be pruned"
        raise UserError(
            f"the budget {metric}={bound:.0f} removes all of the {dense:,.0f} {where}: give less, or a "
            f"share, as {metric}=-30%."
        )
    return dense + bound


def in_network(
    metric: str, units: Sequence[Unit], rows: Sequence[Sequence[float]], whole: float
) -> tuple[list[list[float]], float]:
    """The costs of units, and the fixed cost, so that totals are those of the whole network.

    Args:
        metric: params or macs.
        units: in the order of the network.
        rows: for each unit, the cost of each of its levels.
        whole: what the dense network has.
    """
    own = [list(row) for row in rows]
    if metric == "params":  # a dropped unit leaves with its norms and biases, which no budget on units counts
        own = [
            [cost + (unit.fixed_params if level.kept else 0) for cost, level in zip(row, unit.levels, strict=True)]
            for unit, row in zip(units, rows, strict=True)
        ]
    return own, max(0.0, whole - sum(max(row) for row in own))
