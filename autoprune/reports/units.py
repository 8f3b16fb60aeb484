"""What became of the units: kept by depth, costs, the table of layers."""

from collections.abc import Iterable

from autoprune import live
from autoprune.drawing.bars import Bar, bar_chart
from autoprune.drawing.charts import colour, legend
from autoprune.drawing.kept import kept_chart
from autoprune.drawing.markup import Markup, tag
from autoprune.drawing.tables import amount, figure, figures, note, percent, section, table
from autoprune.level import GROUPS, Level, left
from autoprune.reports.record import Run
from autoprune.space import Unit
from autoprune.wording import groups


def kinds(run: Run) -> dict[str, list[int]]:
    """Indices of the units of each kind, in the order of the network."""
    found: dict[str, list[int]] = {}
    for u, unit in enumerate(run.space.units):
        found.setdefault(unit.kind, []).append(u)
    return found


def by_depth(run: Run) -> Markup | None:
    """The share kept of every unit, kind by kind, from the first block to the last."""
    if run.best is None:
        return None
    uniform = run.space.levels_of(run.space.uniform())
    drawn = [
        kept_chart(kind, [(*pair, uniform[u]) for pair, u in zip(_pairs(run, members), members, strict=True)], i)
        for i, (kind, members) in enumerate(kinds(run).items())
    ]
    return section(
        "Kept by depth",
        note("Every bar is a unit, from the first block to the last. Dashed: the mean of the uniform policy."),
        figures(*drawn),
    )


def costs(run: Run) -> Markup | None:
    """What every unit costs under each metric, dense and kept."""
    if run.best is None:
        return None
    names = list(kinds(run))
    drawn = []
    for metric in run.space.costs:
        called = live.shown(metric)
        cost_U, dense = run.costs(metric), run.space.cost(run.space.dense, metric)
        bars = []
        for u, (unit, level) in enumerate(_pairs(run, range(len(run.space.units)))):
            now, full = cost_U[u][level.key], cost_U[u][unit.levels[0].key]
            title = f"{unit.name}: {amount(now)} of {amount(full)} {called} ({percent(now, full)})"
            bars.append(Bar(str(unit.block), now, title, full, names.index(unit.kind)))
        total = run.used(metric, run.best.keys)
        chart = bar_chart(
            bars, f"{called} of every unit: {amount(total)} of {amount(dense)} kept", "block", f"{called} of a unit"
        )
        drawn.append(figure(f"{called}: {amount(total)} of {amount(dense)} kept ({percent(total, dense)})", chart))
    return section(
        "Costs by unit",
        note("Filled: what is kept. Pale: what the dense unit costs."),
        figures(*drawn),
        legend([(name, colour(i)) for i, name in enumerate(names)]) if len(names) > 1 else None,
    )


def layers(run: Run) -> Markup | None:
    """The policy as a table."""
    if run.best is None:
        return None
    order = list(kinds(run))
    of = groups(order)
    rows = [
        [
            unit.name,
            f"{unit.groups:,}",
            f"{level.kept:,}" if level.form == GROUPS else left(level, unit.groups),
            tag("td", percent(level.density, 1), _meter(level.density, order.index(unit.kind))),
            "mask" if run.best.numbers is None else str(run.best.numbers[u]),
        ]
        for u, (unit, level) in enumerate(_pairs(run, range(len(run.space.units))))
    ]
    return section("Layers", table("Layers", ("unit", of, "kept", "share kept", "level"), rows))


def _pairs(run: Run, members: Iterable[int]) -> list[tuple[Unit, Level]]:
    assert run.best is not None
    return [(run.space.units[u], run.best.levels[u]) for u in members]


def _meter(share: float, number: int) -> Markup:
    return tag("span", tag("i", style=f"width:{100 * share:.1f}%"), class_=f"meter {colour(number)}")
