"""Learning curves: chooses the incumbents of a search that are scored again, and computes quartiles over searches.

Shapes: I incumbents, G grid points.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.objective import Answer

Floats = NDArray[np.float64]
Point = tuple[int, float, float]
"""Tokens, seconds, loss of the incumbent on a sample that all searches share."""

FIRST = 1e-3  # the least x of a curve: its axis may be logarithmic


def thinned(incumbents: Sequence[Answer], points: int) -> list[Answer]:
    """First, last, and what was the incumbent at tokens evenly spread between on a logarithmic axis."""
    if len(incumbents) <= points:
        return list(incumbents)
    tokens_I = np.array([one.tokens for one in incumbents])
    at = np.searchsorted(tokens_I, np.geomspace(tokens_I[0], tokens_I[-1], points - 1), side="right") - 1
    return [incumbents[i] for i in sorted({0, len(incumbents) - 1, *at.tolist()})]


def quartiles(runs: Sequence[Sequence[Point]], column: int) -> tuple[Floats, Floats]:
    """Where an incumbent of any run changes, `[G]`, and the quartiles over the runs from there on, `[3, G]`.

    Begins where half of the runs have an incumbent. A run that has ended keeps its last.

    Args:
        runs: at least one, each with at least one point.
        column: of the points, what is along the axis: 0 for tokens, 1 for seconds.
    """
    at_runs = [np.maximum([point[column] for point in run], FIRST) for run in runs]
    begin = np.median([at[0] for at in at_runs])
    grid_G = np.unique(np.concatenate([[begin], *at_runs]))
    grid_G = grid_G[grid_G >= begin]
    rows = []
    for at, run in zip(at_runs, runs, strict=True):
        latest_G = np.searchsorted(at, grid_G, side="right") - 1
        rows.append(np.where(latest_G >= 0, np.array([point[2] for point in run])[latest_G], np.nan))
    return grid_G, np.nanpercentile(np.array(rows), (25, 50, 75), axis=0)
