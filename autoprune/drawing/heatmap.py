"""A heat map as inline SVG: one colour, the fuller the more."""

from collections.abc import Sequence

from autoprune.drawing import frame
from autoprune.drawing.markup import Markup, join, tag
from autoprune.drawing.scales import Scale, drawable, extent, short

FAINTEST = 0.07  # of the opacity: the smallest value is still a cell
ROW = 22.0


def heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    titles: Sequence[Sequence[str]] | None,
    label: str,
    x_label: str,
    y_label: str,
    *,
    colour: int = 0,
    shade: Scale | None = None,
) -> Markup:
    """A grid of cells.

    Args:
        rows: labels, from the top.
        columns: labels, from the left; equal neighbours are labelled once.
        values: of each row and column; None is not known and left empty, infinite is marked as overflowed.
        titles: tooltips, alike; None where there are too many.
        label: what the chart shows, for screen readers.
        x_label: of the columns.
        y_label: of the rows.
        colour: its number.
        shade: from a value to an opacity, to share between charts; None makes one of the values.
    """
    shade = shade or shading([value for row in values for value in row])
    width = (frame.WIDTH - frame.LEFT - frame.RIGHT) / max(1, len(columns))
    height = frame.TOP + ROW * len(rows) + frame.BOTTOM
    cells = [
        _cell(value, titles[r][c] if titles else None, frame.LEFT + c * width, frame.TOP + r * ROW, width, shade)
        for r, row in enumerate(values)
        for c, value in enumerate(row)
    ]
    names = [
        tag("text", name, x=frame.LEFT - 8, y=frame.TOP + (r + 0.5) * ROW + 5, text_anchor="end")
        for r, name in enumerate(rows)
    ]
    places = [frame.LEFT + (c + 0.5) * width for c in range(len(columns))]
    return frame.picture(
        label,
        tag("g", *cells, class_=f"cells c{colour}"),
        *names,
        *frame.names(columns, places, height),
        frame.titles(x_label, y_label, height),
        height=height,
    )


def shading(values: Sequence[float | None]) -> Scale:
    """From values to opacities: by their logarithms where they span more than a factor of 20."""
    seen = [value for value in values if value is not None and drawable(value)]
    positive = [value for value in seen if value > 0]
    if positive and max(positive) > 20 * min(positive):
        low, high = extent([max(max(positive) / 1e4, min(positive)), max(positive)], log=True)
        return Scale(low, high, FAINTEST, 1.0, log=True)
    return Scale(*extent(seen), FAINTEST, 1.0)


def scale_note(shade: Scale, unit: str) -> Markup:
    """The shades from the least to the most, with what they mean at both ends."""
    steps = [tag("span", class_="shade c0", style=f"opacity:{FAINTEST + (1 - FAINTEST) * i / 5:.2f}") for i in range(6)]
    kind = f" ({unit}, logarithmic)" if shade.log else f" ({unit})"
    return tag("p", join(f"{short(shade.low)} ", *steps, f" {short(shade.high)}", kind), class_="note scale")


def _cell(value: float | None, title: str | None, x: float, y: float, width: float, shade: Scale) -> Markup:
    gap = min(1.5, width / 8)
    box = {"x": x + gap / 2, "y": y + 0.75, "width": width - gap, "height": ROW - 1.5}
    hint = [] if title is None else [tag("title", title)]
    if value is None:
        return tag("rect", *hint, **box, class_="unknown")
    if not drawable(value):
        return tag("rect", *hint, **box, class_="overflow")
    return tag("rect", *hint, **box, fill_opacity=f"{shade(value):.2f}")
