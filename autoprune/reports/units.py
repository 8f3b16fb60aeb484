"""What became of the units: kept by depth, costs, the table of layers."""

from collections.abc import Iterable

from autoprune.reports.bars import Bar, bar_chart
from autoprune.reports.charts import colour, legend
from autoprune.reports.markup import Markup, tag
from autoprune.reports.record import Run
from autoprune.reports.tables import amount, figure, figures, note, percent, section, table
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
    drawn = []
    for i, (kind, members) in enumerate(kinds(run).items()):
        bars = [
            Bar(str(unit.block), 100 * kept / unit.groups, _kept(unit, kept), 100.0, i)
            for unit, kept in _pairs(run, members)
        ]
        even = sum(100 * run.uniform[u] / run.space.units[u].groups for u in members) / len(members)
        mean = sum(bar.value for bar in bars) / len(bars)
        chart = bar_chart(
            bars, f"Share kept of the {kind} units of {len(bars)} blocks, {mean:.0f} % on average", "block",
            f"% of {groups([kind])} kept", top=100.0, reference=even,
        )  # fmt: skip
        drawn.append(figure(f"{kind}, {mean:.0f} % kept on average", chart))
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
        cost_U, dense = run.costs(metric), run.space.cost(run.space.dense, metric)
        bars = []
        for u, (unit, kept) in enumerate(_pairs(run, range(len(run.space.units)))):
            now, full = cost_U[u][kept], cost_U[u][unit.groups]
            title = f"{unit.name}: {amount(now)} of {amount(full)} {metric} ({percent(now, full)})"
            bars.append(Bar(str(unit.block), now, title, full, names.index(unit.kind)))
        total = run.used(metric, run.best.kept)
        chart = bar_chart(
            bars, f"{metric} of every unit: {amount(total)} of {amount(dense)} kept", "block", f"{metric} of a unit"
        )
        drawn.append(figure(f"{metric}: {amount(total)} of {amount(dense)} kept ({percent(total, dense)})", chart))
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
            f"{kept:,}",
            tag("td", percent(kept, unit.groups), _meter(kept / unit.groups, order.index(unit.kind))),
            "mask" if run.best.levels is None else str(run.best.levels[u]),
        ]
        for u, (unit, kept) in enumerate(_pairs(run, range(len(run.space.units))))
    ]
    return section("Layers", table("Layers", ("unit", of, "kept", "share kept", "level"), rows))


def _pairs(run: Run, members: Iterable[int]) -> list[tuple[Unit, int]]:
    assert run.best is not None
    return [(run.space.units[u], run.best.kept[u]) for u in members]


def _kept(unit: Unit, kept: int) -> str:
    return f"{unit.name}: {kept:,} of {unit.groups:,} {groups([unit.kind])} kept ({percent(kept, unit.groups)})"


def _meter(share: float, number: int) -> Markup:
    return tag("span", tag("i", style=f"width:{100 * share:.1f}%"), class_=f"meter {colour(number)}")
