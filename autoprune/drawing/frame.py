"""The frame of a chart: axes with round ticks, and how they are labelled.

Charts are drawn on a canvas of 520 units that the page scales. On a phone text is made larger (`style.py`), and the
margins leave room for it.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from autoprune.drawing.markup import Markup, join, tag
from autoprune.drawing.scales import Scale

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 34, 56
CHARACTER = 9.6  # width of one, as large as on a phone


def picture(label: str, *parts: object, height: float = HEIGHT) -> Markup:
    """An SVG image.

    Args:
        label: what it shows, for those who cannot see it.
        parts: what is drawn.
        height: of the canvas.
    """
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=label)


def horizontal(low: float, high: float, log: bool = False) -> Scale:
    """The x axis, from left to right."""
    return Scale(low, high, LEFT, WIDTH - RIGHT, log)


def vertical(low: float, high: float, log: bool = False, height: float = HEIGHT) -> Scale:
    """The y axis, from the bottom up."""
    return Scale(low, high, height - BOTTOM, TOP, log)


def grid(x: Scale | None, y: Scale, x_label: str, y_label: str, height: float = HEIGHT) -> Markup:
    """Lines at the ticks of y, labels at the ticks of both, and what the axes are of.

    Args:
        x: None where things, not numbers, are along the axis.
        y: of the values.
        x_label: below the axis.
        y_label: above the axis, so that it reads like the rest.
        height: of the canvas.
    """
    rows = [
        join(
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"),
            tag("text", written, x=LEFT - 8, y=y(value) + 5, text_anchor="end"),
        )
        for value, written in y.ticks(5 if height >= HEIGHT else 4)
    ]
    columns = [] if x is None else x_ticks(((x(value), written) for value, written in x.ticks(5)), height)
    floor = height - BOTTOM
    return join(
        *rows,
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=float(floor), y2=float(floor), class_="axis"),
        *columns,
        titles(x_label, y_label, height),
    )


def titles(x_label: str, y_label: str, height: float = HEIGHT) -> Markup:
    """What the axes are of."""
    return join(
        tag("text", y_label, x=4, y=16, class_="title"),
        tag("text", x_label, x=WIDTH - RIGHT, y=height - 8, text_anchor="end", class_="title"),
    )


def names(labels: Sequence[str], places: Sequence[float], height: float = HEIGHT) -> list[Markup]:
    """Names of things along the axis: equal neighbours once, and every second, fourth, ... where they would touch."""
    firsts = [i for i, name in enumerate(labels) if i == 0 or name != labels[i - 1]]
    gaps = [places[b] - places[a] for a, b in pairwise(firsts)]
    needed = CHARACTER * (max((len(name) for name in labels), default=0) + 1.2)
    every = 1
    while gaps and every * min(gaps) < needed and every < len(firsts):
        every *= 2
    return x_ticks(((places[i], labels[i]) for i in firsts[::every]), height)


def x_ticks(marks: Iterable[tuple[float, str]], height: float = HEIGHT) -> list[Markup]:
    """Labels below the axis; one that would touch the one before it is left out."""
    drawn, free = [], 0.0
    for place, written in marks:
        half = CHARACTER * len(written) / 2
        if place - half < free:
            continue
        free = place + half + CHARACTER
        anchor = "end" if place + half > WIDTH else "middle"
        drawn.append(tag("text", written, x=place, y=height - BOTTOM + 20, text_anchor=anchor))
    return drawn


def path(points: Sequence[tuple[float, float]], class_: str, step: bool = False, close: bool = False) -> Markup:
    """A line through points of the drawing, straight or in steps."""
    written, previous = [], None
    for x, y in points:
        if previous is None:
            written.append(f"M{x:.1f} {y:.1f}")
        else:
            written.append(f"H{x:.1f}V{y:.1f}" if step else f"L{x:.1f} {y:.1f}")
        previous = (x, y)
    return tag("path", d="".join(written) + ("Z" if close else ""), class_=class_)


def dashed(y: float, name: str, left: bool = False) -> Markup:
    """A horizontal line to compare with, named at its right end, or the left one."""
    place, anchor = (LEFT + 6, "start") if left else (WIDTH - RIGHT, "end")
    return join(
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="reference"),
        tag("text", name, x=place, y=y - 6, text_anchor=anchor, class_="halo"),
    )
