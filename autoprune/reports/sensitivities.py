"""How much every unit matters by itself: scores of policies that change one unit, or else the levels' output errors."""

from autoprune.drawing.heatmap import heatmap, scale_note, shading
from autoprune.drawing.markup import Markup
from autoprune.drawing.scales import Scale
from autoprune.drawing.tables import figure, figures, loss, note, section
from autoprune.level import Key, form_of
from autoprune.reports.record import Run
from autoprune.reports.units import kinds
from autoprune.space import Unit
from autoprune.wording import groups

ENOUGH = 0.5  # of the units: fewer scores are accidents, not a measurement

NOTHING = (
    "The search scored no policies that change one unit alone, and every level of this space loses as much of its "
    "unit’s output as any other: nothing is known of single units."
)
HINTS = 800  # cells of a map with a tooltip each: more would make the page large

Values = dict[tuple[int, Key], float]
"""From a unit and the key of a level to a loss or an error."""


def sensitivities(run: Run) -> Markup | None:
    """A heat map for each kind: level by block."""
    values, what = measured(run), run.unit_of_loss
    source = "Mean loss of the policies that differ from dense in one unit alone, as the search scored them."
    if len({u for u, _ in values}) < ENOUGH * len(run.space.units):
        values, what = output_errors(run), "share of the output’s energy"
        source = (
            "The search scored no policies that change one unit alone, so these are errors of the units’ outputs on "
            f"the reconstruction {run.words.data}: the share of the output’s energy that a level loses after it."
        )
    if not values:
        return None
    if len(set(values.values())) == 1:
        return section("Sensitivities", note(NOTHING))
    shade = shading(list(values.values()))
    maps = [_map(run, kind, members, values, shade) for kind, members in kinds(run).items() if _known(members, values)]
    return section("Sensitivities", note(source), figures(*maps), scale_note(shade, what))


def measured(run: Run) -> Values:
    """Mean losses of policies that differ from dense in exactly one unit."""
    found: Values = {}
    dense = run.space.keys(run.space.dense)
    for one in run.scored:
        changed = [u for u, (key, full) in enumerate(zip(one.keys, dense, strict=True)) if key != full]
        if len(changed) == 1:
            found[changed[0], one.keys[changed[0]]] = one.loss
    return found


def output_errors(run: Run) -> Values:
    """Errors of the levels below dense, from the statistics; empty where there are none."""
    rows = zip(run.space.units, run.statistics, strict=False)
    return {
        (u, level.key): error
        for u, (unit, known) in enumerate(rows)
        for level, error in zip(unit.levels[1:], known.output_errors[1:], strict=False)
    }


def _map(run: Run, kind: str, members: list[int], values: Values, shade: Scale) -> Markup:
    units = [run.space.units[u] for u in members]
    depth = max(len(unit.levels) for unit in units)
    levels = [i for i in range(1, depth) if any(_value(run, u, i, values) is not None for u in members)]
    rows = [_share(units, i) for i in levels]
    cells = [[_value(run, u, i, values) for u in members] for i in levels]
    titles = (
        None if len(levels) * len(members) > HINTS else [[_title(run, u, i, values) for u in members] for i in levels]
    )
    chart = heatmap(
        rows, [str(unit.block) for unit in units], cells, titles,
        f"Sensitivity of the {kind} units by level and block", "block", f"{groups([kind])} kept",
        shade=shade,
    )  # fmt: skip
    return figure(kind, chart)


def _known(members: list[int], values: Values) -> bool:
    return any(u in members for u, _ in values)


def _share(units: list[Unit], level: int) -> str:
    """What a level keeps, where that is the same for all."""
    shares = {f"{100 * unit.levels[level].density:.0f} %" for unit in units if level < len(unit.levels)}
    return shares.pop() if len(shares) == 1 else f"level {level}"


def _value(run: Run, u: int, level: int, values: Values) -> float | None:
    levels = run.space.units[u].levels
    return values.get((u, levels[level].key)) if level < len(levels) else None


def _title(run: Run, u: int, number: int, values: Values) -> str:
    unit = run.space.units[u]
    if number >= len(unit.levels):
        return f"{unit.name} has no such level"
    level, known = unit.levels[number], _value(run, u, number, values)
    told = "not scored" if known is None else loss(known)
    return f"{unit.name}, {form_of(level).told(level, unit.groups, unit.kind)}: {told}"
