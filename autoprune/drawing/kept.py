"""The share kept of every unit of a kind, as bars."""

from collections.abc import Sequence

from autoprune.drawing.bars import Bar, bar_chart
from autoprune.drawing.markup import Markup
from autoprune.drawing.tables import figure, percent
from autoprune.level import GROUPS, Level, form_of
from autoprune.unit import Unit
from autoprune.wording import groups


def kept_chart(kind: str, members: Sequence[tuple[Unit, Level, Level]], number: int) -> Markup:
    """A figure with one bar a unit.

    Args:
        kind: of the units.
        members: the units from the first block to the last, with the level of each and its uniform one.
        number: of the colour.
    """
    bars = [Bar(str(unit.block), 100 * level.density, _told(unit, level), 100.0, number) for unit, level, _ in members]
    of = groups([kind]) if all(level.form == GROUPS for _, level, _ in members) else "the weights"
    even = sum(100 * uniform.density for _, _, uniform in members) / len(members)
    mean = sum(bar.value for bar in bars) / len(bars)
    chart = bar_chart(
        bars, f"Share kept of the {kind} units of {len(bars)} blocks, {mean:.0f} % on average", "block",
        f"% of {of} kept", top=100.0, reference=even,
    )  # fmt: skip
    return figure(f"{kind}, {mean:.0f} % kept on average", chart)


def _told(unit: Unit, level: Level) -> str:
    return f"{unit.name}: {form_of(level).told(level, unit.groups, unit.kind)} ({percent(level.density, 1)})"
