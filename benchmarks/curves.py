"""Learning curves of compare_agents.py, and no benchmark itself: incumbents scored again, and the plot.

Shapes: G grid points, N agents.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import Bench

from autoprune.comparing.curves import Point, quartiles, thinned
from autoprune.errors import UserError
from autoprune.objective import Answer

COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")  # Okabe & Ito 2008
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)))
ROW = 0.052  # height of a label, as a share of the panel's


def curve_of(bench: Bench, incumbents: Sequence[Answer], points: int) -> list[Point]:
    """Incumbents' losses on the whole search split, outside the limits."""
    chosen = thinned(incumbents, points)
    distinct = list(dict.fromkeys(one.proposal for one in chosen))
    losses = dict(zip(distinct, bench.search_losses(distinct), strict=True))
    return [(one.tokens, one.seconds, losses[one.proposal]) for one in chosen]


def check_matplotlib() -> None:
    """Raise a UserError where plots cannot be made."""
    if find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib, which is not installed: pip install matplotlib.")


def plot(curves: Mapping[str, Sequence[Sequence[Point]]], path: Path, title: str) -> None:
    """Median and quartiles over runs against tokens and against seconds, as SVG (or PNG, by the suffix).

    Args:
        curves: of every run of every agent; the last point's tokens and seconds are those at which the run ended.

    Raises:
        UserError: no matplotlib.
    """
    check_matplotlib()
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "autoprune", "svg.fonttype": "none", "font.size": 10.5})
    figure, panels = pyplot.subplots(1, 2, figsize=(14, 6), sharey=True)
    top, bottom = _range(curves)
    for axes, column, name in zip(panels, (0, 1), ("tokens scored", "seconds"), strict=True):
        ends = {}
        for number, (agent, runs) in enumerate(curves.items()):
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}
            ends[agent] = (_draw(axes, runs, column, style), style)
        axes.set_xscale("log")
        axes.set_ylim(bottom, top)
        axes.set_xlabel(f"{name} (log scale)")
        axes.grid(color="#e3e3e3", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(axes.get_xlim())  # leaders to the labels must not widen it
        _label(axes, ends)
    panels[0].set_ylabel("KL to the dense network on the search split, nats per token")
    panels[1].tick_params(labelleft=True)
    told = "incumbent, median and quartiles over seeds; a line ends where the last of its searches did"
    figure.suptitle(f"{title}\n{told}", y=1.0)
    figure.subplots_adjust(wspace=0.42)
    dated: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}  # equal numbers, equal files
    figure.savefig(path, bbox_inches="tight", dpi=150, **dated)
    pyplot.close(figure)


def _range(curves: Mapping[str, Sequence[Sequence[Point]]]) -> tuple[float, float]:
    """Top and bottom of the axis: all that searches end with, and above it as much again of how they got there."""
    last = [run[-1][2] for runs in curves.values() for run in runs]
    first = max(run[0][2] for runs in curves.values() for run in runs)
    height = max(max(last) - min(last), 0.02 * max(last), 1e-9)
    return min(first, max(last) + height) + 0.08 * height, min(last) - 0.08 * height


def _draw(axes: Any, runs: Sequence[Sequence[Point]], column: int, style: Mapping[str, Any]) -> tuple[float, float]:
    """Line and band; where the line ends."""
    grid_G, (low_G, middle_G, high_G) = quartiles(runs, column)
    axes.plot(grid_G, middle_G, linewidth=1.8, drawstyle="steps-post", **style)
    axes.plot(grid_G[-1:], middle_G[-1:], marker="o", markersize=4, color=style["color"])
    axes.fill_between(grid_G, low_G, high_G, step="post", color=style["color"], alpha=0.1, linewidth=0)
    return float(grid_G[-1]), float(middle_G[-1])


def _label(axes: Any, ends: Mapping[str, tuple[tuple[float, float], Mapping[str, Any]]]) -> None:
    """Names right of the panel, in their lines' order and pushed apart, each with a leader to its line's end."""
    bottom, top = axes.get_ylim()
    heights = apart({agent: (y - bottom) / (top - bottom) for agent, ((_, y), _) in ends.items()})
    to_data: Callable[[tuple[float, float]], Any] = (axes.transAxes + axes.transData.inverted()).transform
    for agent, ((x, y), style) in ends.items():
        left, right = (to_data((share, heights[agent])) for share in (1.015, 1.075))
        axes.plot([x, left[0]], [y, left[1]], color=style["color"], linewidth=0.5, alpha=0.6, clip_on=False)
        axes.plot([left[0], right[0]], [left[1], right[1]], linewidth=1.8, clip_on=False, **style)
        axes.text(1.085, heights[agent], agent, transform=axes.transAxes, color=style["color"], va="center")


def apart(heights: Mapping[str, float]) -> dict[str, float]:
    """Heights in [0, 1] at least a row apart, in the same order, about where they were."""
    order = sorted(heights, key=lambda name: heights[name])
    ranks_N = np.arange(len(order))
    # with each row taken off, apart means: not falling
    packed_N = np.maximum.accumulate([heights[name] for name in order] - ROW * ranks_N)
    packed_N = np.minimum(packed_N, 1 - ROW * len(order)) if len(order) * ROW < 1 else packed_N
    return {name: float(height) for name, height in zip(order, packed_N + ROW * ranks_N, strict=True)}
