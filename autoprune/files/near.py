"""Paths that lead nowhere, and the ones that may be meant."""

import difflib
import itertools
import os
from pathlib import Path

MANY = 2000  # entries of a folder that are looked at


def near(path: str | Path, cutoff: float = 0.6) -> Path | None:
    """The path that exists and is written most like one that does not; None if none is like it.

    Args:
        path: each of its folders may be mistyped.
        cutoff: how much a name must be like another, in [0, 1]; 1 is the same name.
    """
    place = Path(os.path.expanduser(path))
    parent = place.parent
    if not parent.is_dir():
        meant = near(parent, cutoff) if parent != place.parent.parent else None
        if meant is None or not meant.is_dir():
            return None
        parent = meant
        if (parent / place.name).exists():
            return parent / place.name
    try:
        names = [entry.name for entry in itertools.islice(parent.iterdir(), MANY)]
    except OSError:
        return None
    lowered = {name.lower(): name for name in names}
    found = difflib.get_close_matches(place.name.lower(), lowered, n=1, cutoff=cutoff)
    return parent / lowered[found[0]] if found else None


def did_you_mean(path: str | Path) -> str:
    """A sentence behind a space that names the path that may be meant; empty if there is none."""
    meant = near(path)
    return f" Did you mean '{meant}'?" if meant is not None else ""
