"""Bars as inline SVG: one for each unit, and what it is a part of."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.drawing import frame
from autoprune.drawing.charts import colour
from autoprune.drawing.markup import Markup, tag
from autoprune.drawing.scales import Scale, drawable


@dataclass(frozen=True)
class Bar:
    """One bar: `value` filled, on an outline of `whole` where there is one.

    Args:
        label: below it; equal neighbours are labelled once.
        title: the tooltip.
        colour: number of the colour.
    """

    label: str
    value: float
    title: str
    whole: float | None = None
    colour: int = 0


def bar_chart(
    bars: Sequence[Bar],
    label: str,
    x_label: str,
    y_label: str,
    *,
    top: float | None = None,
    reference: float | None = None,
    height: float = 220,
) -> Markup:
    """Bars side by side from 0 upwards.

    Args:
        bars: from left to right.
        label: what the chart shows, for screen readers.
        x_label: of what is along the axis.
        y_label: of the values, with their unit.
        top: of the axis; None is the largest value.
        reference: where a dashed line is drawn.
        height: of the canvas.
    """
    values = [value for bar in bars for value in (bar.value, bar.whole) if value is not None and drawable(value)]
    y = frame.vertical(0.0, top or max([value for value in values if value > 1e-99], default=1.0), height=height)
    slot = (frame.WIDTH - frame.LEFT - frame.RIGHT) / max(1, len(bars))
    places = [frame.LEFT + (i + 0.5) * slot for i in range(len(bars))]
    return frame.picture(
        label,
        frame.grid(None, y, x_label, y_label, height),
        *(_bar(bar, place, min(0.78 * slot, 44.0), y) for bar, place in zip(bars, places, strict=True)),
        None if reference is None else frame.dashed(y(reference), ""),
        *frame.names([bar.label for bar in bars], places, height),
        height=height,
    )


def _bar(bar: Bar, x: float, width: float, y: Scale) -> Markup:
    floor = y(0.0)

    def rectangle(value: float | None, class_: str) -> Markup | None:
        if value is None or not drawable(value):
            return None
        return tag("rect", x=x - width / 2, y=y(value), width=width, height=max(0.0, floor - y(value)), class_=class_)

    return tag(
        "g", tag("title", bar.title), rectangle(bar.whole, "whole"), rectangle(bar.value, "part"),
        class_=colour(bar.colour),
    )  # fmt: skip
