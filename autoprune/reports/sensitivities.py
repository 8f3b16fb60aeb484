"""How much every unit matters by itself: scores of policies that change one unit, or else the levels' output errors."""

from autoprune.reports.heatmap import heatmap, scale_note, shading
from autoprune.reports.markup import Markup
from autoprune.reports.record import Run
from autoprune.reports.scales import Scale
from autoprune.reports.tables import figure, figures, loss, note, section
from autoprune.reports.units import kinds
from autoprune.space import Unit
from autoprune.wording import groups

ENOUGH = 0.5  # of the units: fewer scores are accidents, not a measurement

NOTHING = (
    "The search scored no policies that change one unit alone, and every level of this space loses as much of its "
    "unit’s output as any other: nothing is known of single units."
)
HINTS = 800  # cells of a map with a tooltip each: more would make the page large

Values = dict[tuple[int, int], float]
"""From a unit and the groups that it keeps to a loss or an error."""


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
    for one in run.scored:
        units = zip(one.kept, run.space.units, strict=True)
        changed = [u for u, (kept, unit) in enumerate(units) if kept < unit.groups]
        if len(changed) == 1:
            found[changed[0], one.kept[changed[0]]] = one.loss
    return found


def output_errors(run: Run) -> Values:
    """Errors of the levels below dense, from the statistics; empty where there are none."""
    rows = zip(run.space.units, run.statistics, strict=False)
    return {
        (u, kept): error
        for u, (unit, known) in enumerate(rows)
        for kept, error in zip(unit.kept[1:], known.output_errors[1:], strict=False)
    }


def _map(run: Run, kind: str, members: list[int], values: Values, shade: Scale) -> Markup:
    units = [run.space.units[u] for u in members]
    depth = max(len(unit.kept) for unit in units)
    levels = [i for i in range(1, depth) if any((u, _at(run, u, i)) in values for u in members)]
    rows = [_share(units, i) for i in levels]
    cells = [[values.get((u, _at(run, u, i))) for u in members] for i in levels]
    titles = (
        None
        if len(levels) * len(members) > HINTS
        else [[_title(run, u, _at(run, u, i), values) for u in members] for i in levels]
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
    shares = {f"{100 * unit.kept[level] / unit.groups:.0f} %" for unit in units if level < len(unit.kept)}
    return shares.pop() if len(shares) == 1 else f"level {level}"


def _at(run: Run, u: int, level: int) -> int:
    kept = run.space.units[u].kept
    return kept[level] if level < len(kept) else -1


def _title(run: Run, u: int, kept: int, values: Values) -> str:
    unit = run.space.units[u]
    if kept < 0:
        return f"{unit.name} has no such level"
    known = values.get((u, kept))
    told = "not scored" if known is None else loss(known)
    return f"{unit.name}, {kept:,} of {unit.groups:,} {groups([unit.kind])} kept: {told}"
