"""The error of a budget that no policy meets."""

from autoprune import live
from autoprune.errors import UserError


def unmet(metric: str, bound: float, smallest: float, dense: float, fixed: float, measure: str | None) -> UserError:
    """The error.

    Args:
        metric: its name.
        bound: on the total.
        smallest: total that can be reached.
        dense: total of the dense network.
        fixed: the part of every total that cannot be pruned.
        measure: unit of measurement, where there is one.
    """
    of = f" {measure}" if measure is not None else ""
    whole = f" {_told(fixed)}{of} cannot be pruned." if fixed else ""
    if smallest >= dense:
        way = f" No level of this search lowers {live.shown(metric)}: bound another metric, or take other --forms."
    else:
        way = " Raise the budget."
    return UserError(
        f"the budget {live.shown(metric)}={_told(bound)}{of} ({_share(bound, dense)} of dense) cannot be met: the "
        f"smallest reachable value is {_told(smallest)}{of} ({_share(smallest, dense)} of dense, {_told(dense)}{of})."
        f"{whole}{way}"
    )


def _told(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.3g}%"
