"""From numbers to places on a page: what an axis spans, where its ticks are, how they are written."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HUGE = 1e100  # beyond it a loss is as good as infinite, and differences stay finite
TINY = 1e-100
SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def drawable(value: float | None) -> bool:
    """Whether a number has a place on an axis."""
    return value is not None and math.isfinite(value) and abs(value) < HUGE


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from [low, high] to [start, end] of the drawing.

    Args:
        low: of the data; above 0 where `log`.
        high: of the data, above `low`.
        start: where `low` is drawn.
        end: where `high` is drawn.
        log: whether equal ratios are equal distances.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is drawn; values outside are drawn at the nearer end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Round numbers within the data, each with its label."""
        if self.log:
            found = log_ticks(self.low, self.high, count)
            return [(value, short(value)) for value in found]
        found = ticks(self.low, self.high, count)
        return list(zip(found, labels(found), strict=True))


def extent(values: Iterable[float], log: bool = False, pad: float = 0.0) -> tuple[float, float]:
    """What an axis spans: the drawable values, widened by a share `pad`, never empty.

    Values that a logarithmic axis has no place for are left out.
    """
    kept = [value for value in values if drawable(value) and (not log or value > TINY)]
    low, high = (min(kept), max(kept)) if kept else (1.0, 10.0)
    if log:
        ratio = max((high / low) ** pad, 1.0)
        low, high = low / ratio, high * ratio
        return (low, high) if high > low * (1 + 1e-9) else (low / 2, high * 2)
    low, high = low - pad * (high - low), high + pad * (high - low)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), TINY):
        margin = 0.05 * max(abs(low), abs(high)) or 1.0
        return low - margin, high + margin
    return low, high


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """At most `count` + 1 multiples of 1, 2 or 5 times a power of ten within [low, high].

    There is at least one where `low` is below `high` and `count` is 3 or more.
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5) if m * power >= rough * (1 - 1e-9)), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """1, 2 and 5 times powers of ten within [low, high], or 1 and 3 times, or powers alone, to fit `count`; above 0."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1, 2, 5), (1, 3)):
        fine = [m * 10.0**power for power in powers for m in multiples if low <= m * 10.0**power <= high]
        if 2 <= len(fine) <= count + 1:
            return fine
    decades = [10.0**power for power in powers if low <= 10.0**power <= high]
    if len(decades) >= 2:
        return decades[:: -(-len(decades) // (count + 1))]
    return [value for value in ticks(low, high, count) if value > 0]


def labels(values: Sequence[float]) -> list[str]:
    """Evenly spaced numbers, written alike: one suffix, and the decimals that tell them apart."""
    if not values:
        return []
    largest = max(abs(value) for value in values)
    scale, letter = next(((s, letter) for s, letter in SCALES if largest >= s), SCALES[-1])
    step = (values[1] - values[0] if len(values) > 1 else largest or 1.0) / scale
    decimals = max(0, -math.floor(math.log10(step) + 1e-6)) if step > 0 else 0
    if decimals > 4 or largest >= 1e16:
        digits = min(15, 2 + math.ceil(math.log10(largest / (step * scale)))) if step > 0 else 6
        return [f"{value:.{digits}g}" for value in values]
    return [f"{value / scale:.{decimals}f}{letter}" if value else "0" for value in values]


def short(value: float) -> str:
    """`22.6M`, `1.2k`, `0.5`: three digits and a scale."""
    scale, letter = next(((s, letter) for s, letter in SCALES if abs(value) >= s), SCALES[-1])
    return f"{value / scale:.3g}{letter}"


def thin(count: int, at_most: int) -> list[int]:
    """Evenly spread indices of `count` things, the first and the last among them."""
    if count <= at_most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (at_most - 1)) for i in range(at_most)})
