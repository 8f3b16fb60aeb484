"""A result as frames of pandas and as a drawing of matplotlib, both of which are optional packages."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoprune import result_table
from autoprune.errors import UserError
from autoprune.level import form_of
from autoprune.wording import groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from autoprune.result import SearchResult
    from autoprune.space import SearchSpace


def units_of(result: "SearchResult") -> "DataFrame":
    """A row for every unit, as `SearchResult.to_frame` says."""
    costs = {metric: _costs(result.space, metric) for metric in result.space.costs}
    records = []
    for u, (unit, policy) in enumerate(zip(result.space.units, result.policy.units, strict=True)):
        level = policy.as_level
        record: dict[str, Any] = {
            "unit": unit.name, "kind": unit.kind, "block": unit.block, "groups": unit.groups, "level": policy.level,
            "form": level.form, "kept": form_of(level).short(level), "share": level.density,
        }  # fmt: skip
        for metric, cost_U in costs.items():
            record |= {f"{metric}_dense": cost_U[u][unit.levels[0].key], metric: cost_U[u].get(level.key)}
        records.append(record)
    return frame(records).set_index("unit")


def history_of(result: "SearchResult") -> "DataFrame":
    """A row for every batch, as `SearchResult.history_frame` says."""
    return frame(result.history, ["tokens", "seconds", "loss"])


def frame(records: Sequence[Any], columns: Sequence[str] | None = None) -> "DataFrame":
    """A frame of pandas.

    Raises:
        UserError: it is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise UserError("frames need pandas: pip install 'autoprune[notebook]'.") from error
    return DataFrame(records, columns=columns)


def plotted(result: "SearchResult", ax: "Axes | None") -> "Axes":
    """Bars of what is kept, as `SearchResult.plot` says."""
    if ax is None:
        ax = _new_axes()
    kinds = result_table.units(result)
    width = 0.8 / len(kinds)
    for i, (kind, members) in enumerate(kinds.items()):
        places = [unit.block + (i - (len(kinds) - 1) / 2) * width for unit, _, _ in members]
        bars = ax.bar(places, [100 * level.density for _, level, _ in members], width, label=kind)
        even = 100 * result_table.mean([uniform.density for _, _, uniform in members])
        ax.axhline(even, linestyle="--", linewidth=1, color=bars.patches[0].get_facecolor())
    ax.set(xlabel="block", ylabel=f"% of {groups(list(kinds))} kept", ylim=(0, 100))
    ax.set_title("Kept by depth; dashed: the uniform policy")
    ax.legend()
    return ax


def _new_axes() -> "Axes":
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install 'autoprune[notebook]'.") from error
    _, ax = pyplot.subplots(figsize=(8, 3.5), layout="constrained")
    return ax


def _costs(space: "SearchSpace", metric: str) -> list[Mapping[Any, float]]:
    """For each unit, from a level's key to its cost."""
    if metric in space.group_costs:
        return [dict(enumerate(row.tolist())) for row in space.group_costs[metric]]
    rows = zip(space.units, space.rows(metric), strict=True)
    return [{level.key: cost for level, cost in zip(unit.levels, row, strict=True)} for unit, row in rows]
