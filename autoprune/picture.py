"""A picture of a policy in the terminal: a column for every block, as high as what is kept of it."""

import math
from collections.abc import Mapping, Sequence

from autoprune.display import console
from autoprune.level import what_is_kept
from autoprune.policy import Policy
from autoprune.terminal import clean

EIGHTHS = " ▁▂▃▄▅▆▇█"
NOTHING, BLOCK = "·", "block"
ROWS = 8  # of all charts together, at most, unless there are more kinds
WIDEST = 6  # characters of a column and the gap behind it
LABEL = 14  # characters of the name of a kind, at most
NUMBERED = 5  # characters that a column with its number takes

Bars = Mapping[str, Sequence[float | None]]


def print_picture(policy: Policy) -> None:
    """Print what is kept of every block, one chart for each kind of unit."""
    out = console()
    kinds = list(dict.fromkeys(unit.kind for unit in policy.units))
    out.print(f"{what_is_kept((unit.as_level for unit in policy.units), kinds)} in every block")
    for line in picture(bars_of(policy), out.width):
        out.print(line, soft_wrap=True)


def bars_of(policy: Policy) -> dict[str, list[float | None]]:
    """For every kind the share kept of each block, in order; None where a block has no unit of the kind."""
    blocks = sorted({unit.block for unit in policy.units})
    kept: dict[tuple[str, int], tuple[float, int]] = {}
    for unit in policy.units:
        share, count = kept.get((unit.kind, unit.block), (0.0, 0))
        kept[unit.kind, unit.block] = share + unit.density, count + 1
    kinds = dict.fromkeys(unit.kind for unit in policy.units)
    found = {kind: [kept.get((kind, block)) for block in blocks] for kind in kinds}
    return {kind: [None if one is None else one[0] / one[1] for one in row] for kind, row in found.items()}


def picture(bars: Bars, width: int) -> list[str]:
    """The lines of the charts, none longer than `width`."""
    label = min(LABEL, max(len(BLOCK), *map(len, bars)))
    count = max(map(len, bars.values()), default=0)
    room = max(1, width - label - 2)
    each = math.ceil(count / room)  # blocks in one column
    columns = math.ceil(count / each) if count else 0
    step = min(WIDEST, max(1, room // columns)) if columns else 1
    height = max(1, ROWS // max(1, len(bars)))
    lines = []
    for kind, row in bars.items():
        binned = [_mean(row[i : i + each]) for i in range(0, count, each)]
        name = clean(kind)[:label]
        numbers = step >= NUMBERED
        for level in range(height - 1, -1, -1):
            head = name if level == 0 else ""
            lines.append(f"{head:<{label}}  {''.join(_cell(one, level, height, step) for one in binned)}".rstrip())
        if numbers:
            lines.append((" " * (label + 2) + "".join(_number(one, step) for one in binned)).rstrip())
    note = [f"Each column is the mean of {each} blocks."] if each > 1 else []
    return [*lines, _axis(label + 2, count, columns, step), *note]


def _mean(shares: Sequence[float | None]) -> float | None:
    there = [share for share in shares if share is not None]
    return sum(there) / len(there) if there else None


def _cell(share: float | None, level: int, height: int, step: int) -> str:
    """A column's part in one row; the lowest is level 0."""
    eighths = 0 if share is None else math.ceil(share * height * 8 - 1e-9)
    part = min(8, max(0, eighths - 8 * level))
    letter = NOTHING if level == 0 and share == 0 else EIGHTHS[part]
    bar = max(1, step - 1)
    return letter * bar + " " * (step - bar)


def _number(share: float | None, step: int) -> str:
    return f"{'' if share is None else f'{share:.0%}':<{step}}"


def _axis(start: int, count: int, columns: int, step: int) -> str:
    """The numbers of the first and of the last block below their columns, or as near as there is room."""
    last = str(count - 1)
    line = f"{BLOCK:<{start}}0"
    if count < 2:
        return line
    place = min(start + (columns - 1) * step, max(start + columns * step - len(last), len(line) + 1))
    return line.ljust(place) + last
