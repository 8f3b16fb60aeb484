"""Small charts as inline SVG: pure functions from numbers to markup, the same bytes for the same numbers.

Numbers that are infinite or NaN have no place in a chart and are left out. Colours are classes `c0`, `c1`, ... that
`style.py` defines, so that they follow the light or dark page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from autoprune.drawing import frame
from autoprune.drawing.markup import Markup, join, tag
from autoprune.drawing.scales import Scale, drawable, extent, thin

COLOURS = 8
LINE_POINTS = 400  # of one line; more cannot be told apart on a screen


@dataclass(frozen=True)
class Series:
    """A named line.

    Args:
        name: for the legend.
        x: ascending.
        y: one for each x.
        low: lower edge of a band around the line, such as a quartile; None draws none.
        high: upper edge.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Points:
    """Marks of one kind: where, what a tooltip says of each, and a class that says how they look."""

    x: Sequence[float]
    y: Sequence[float]
    titles: Sequence[str]
    class_: str
    radius: float = 3.5


def colour(i: int) -> str:
    """Classes of the i-th series: eight colours, then the same ones dashed."""
    return f"c{i % COLOURS}" + (" second" if i >= COLOURS else "")


def legend(names: Sequence[tuple[str, str]]) -> Markup:
    """A list of (name, class) below a chart."""
    return tag(
        "ul",
        *(tag("li", tag("span", class_=f"key {class_}"), name) for name, class_ in names),
        class_="legend",
    )


def line_chart(
    series: Sequence[Series],
    label: str,
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    step: bool = False,
    references: Sequence[tuple[str, float]] = (),
) -> Markup:
    """Lines, with bands where the series have them.

    Args:
        series: coloured in their order, as `colour` says.
        label: what the chart shows, for screen readers.
        x_label: of the axis, with its unit.
        y_label: of the axis, with its unit.
        log_x: whether equal ratios are equal distances; points at 0 or below are left out then.
        log_y: the same of y.
        step: whether a value holds until the next.
        references: (name, y) of dashed horizontal lines.
    """
    seen = [_visible(one, log_x, log_y) for one in series]
    edges = chain.from_iterable([*one.y, *(one.low or ()), *(one.high or ())] for one in seen)
    x = frame.horizontal(*extent(chain.from_iterable(one.x for one in seen), log_x), log_x)
    y = frame.vertical(*extent([*edges, *(value for _, value in references)], log_y, pad=0.06), log_y)
    return frame.picture(
        label,
        frame.grid(x, y, x_label, y_label),
        *(_band(one, x, y, colour(i), step) for i, one in enumerate(seen)),
        *(frame.dashed(y(value), name, _is_left_free(seen, value, y)) for name, value in references if drawable(value)),
        *(_line(one, x, y, colour(i), step) for i, one in enumerate(seen)),
    )


def _is_left_free(seen: Sequence[Series], value: float, y: Scale) -> bool:
    """Whether lines are farther from a reference where they begin than where they end."""
    ends = [[abs(y(one.y[i]) - y(value)) for one in seen if one.y] for i in (0, -1)]
    return min(ends[0], default=0.0) > min(ends[1], default=0.0)


def _visible(one: Series, log_x: bool, log_y: bool) -> Series:
    """The points of a series that have a place, thinned to what a screen shows."""
    has_band = one.low is not None and one.high is not None
    rows = list(zip(one.x, one.y, one.low if has_band and one.low else one.y, one.high or one.y, strict=False))
    kept = [
        row for row in rows if all(map(drawable, row)) and (not log_x or row[0] > 0) and (not log_y or min(row[1:]) > 0)
    ]
    kept = [kept[i] for i in thin(len(kept), LINE_POINTS)]
    x, y, low, high = zip(*kept, strict=True) if kept else ((), (), (), ())
    return Series(one.name, x, y, low if has_band else None, high if has_band else None)


def _line(one: Series, x: Scale, y: Scale, class_: str, step: bool) -> Markup | None:
    if not one.x:
        return None
    points = [(x(a), y(b)) for a, b in zip(one.x, one.y, strict=True)]
    end = tag("circle", tag("title", f"{one.name}: {one.y[-1]:.4g}"), cx=points[-1][0], cy=points[-1][1], r=3.5)
    return tag("g", frame.path(points, "line", step), end, class_=class_)


def _band(one: Series, x: Scale, y: Scale, class_: str, step: bool) -> Markup | None:
    if not one.low or not one.high:
        return None
    low = [(x(a), y(b)) for a, b in zip(one.x, one.low, strict=True)]
    high = [(x(a), y(b)) for a, b in zip(one.x, one.high, strict=True)]
    there, back = (_held(low), _held(high)) if step else (low, high)
    return tag("g", frame.path([*there, *reversed(back)], "band", close=True), class_=class_)


def _held(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of a line whose values hold until the next."""
    corners = [[(after[0], before[1]), after] for before, after in pairwise(points)]
    return [*points[:1], *chain.from_iterable(corners)]


def scatter_chart(
    groups: Sequence[Points],
    label: str,
    x_label: str,
    y_label: str,
    *,
    log_y: bool = False,
    front: Sequence[tuple[float, float]] = (),
    bound: tuple[str, float] | None = None,
) -> Markup:
    """Points, a front through some of them, and a vertical line at a bound.

    Args:
        groups: drawn one over the other.
        label: what the chart shows, for screen readers.
        x_label: of the axis, with its unit.
        y_label: of the axis, with its unit.
        log_y: whether equal ratios are equal distances; points at 0 or below are left out then.
        front: (x, y) ascending in x, joined by steps.
        bound: name and x of the line.
    """
    xs = [*chain.from_iterable(one.x for one in groups), *([bound[1]] if bound else [])]
    x = frame.horizontal(*extent(xs, pad=0.04))
    y = frame.vertical(*extent(chain.from_iterable(one.y for one in groups), log_y, pad=0.06), log_y)
    steps = [(x(a), y(b)) for a, b in front if drawable(a) and drawable(b) and (not log_y or b > 0)]
    return frame.picture(
        label,
        frame.grid(x, y, x_label, y_label),
        _bound(bound[0], x(bound[1])) if bound else None,
        frame.path(steps, "front", step=True) if steps else None,
        *(_marks(one, x, y, log_y) for one in groups),
    )


def _bound(name: str, x: float) -> Markup:
    right = x > frame.WIDTH / 2
    place, anchor = (x - 6, "end") if right else (x + 6, "start")
    return join(
        tag("line", x1=x, x2=x, y1=frame.TOP, y2=frame.HEIGHT - frame.BOTTOM, class_="reference"),
        tag("text", name, x=place, y=frame.TOP + 12, text_anchor=anchor, class_="halo"),
    )


def _marks(one: Points, x: Scale, y: Scale, log_y: bool) -> Markup:
    marks = [
        tag("circle", tag("title", title), cx=x(a), cy=y(b), r=one.radius)
        for a, b, title in zip(one.x, one.y, one.titles, strict=True)
        if drawable(a) and drawable(b) and (not log_y or b > 0)
    ]
    return tag("g", *marks, class_=one.class_)
