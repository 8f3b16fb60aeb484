"""What a search may spend and has spent: evaluations, tokens, and seconds on a clock that survives a resume."""

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on a search; None is unbounded. Tokens count policies x tokens, whatever prefixes are shared."""

    evals: int | None = None
    tokens: int | None = None
    seconds: float | None = None


@dataclass
class Spent:
    """What a search has used. An evaluation is a policy scored on at least one new sequence.

    What else is charged counts in forward passes, in evaluations as in tokens: slopes, and training steps.
    """

    evals: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Account:
    """What is spent, within limits.

    Args:
        limits: the bounds.

    Attributes:
        spent: so far. Its seconds are those of the last score, whichever life of the search computed it.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.spent = limits, Spent()
        self._started, self._seconds_before = time.monotonic(), 0.0

    @property
    def tokens_left(self) -> float:
        """Tokens that may still be spent; infinite without a limit."""
        return math.inf if self.limits.tokens is None else self.limits.tokens - self.spent.tokens

    @property
    def progress(self) -> float:
        """Share of the tightest limit that is spent, in [0, 1]; 0 without limits. Time cannot be replayed: left out."""
        limits, spent = self.limits, self.spent
        shares = [
            spent.evals / limits.evals if limits.evals else 0.0,
            spent.tokens / limits.tokens if limits.tokens else 0.0,
        ]
        return min(1.0, max(shares))

    @property
    def is_late(self) -> bool:
        """Whether the last score was the last that time allowed."""
        return self.is_over(self.spent.seconds)

    def is_over(self, seconds: float) -> bool:
        """Whether so many seconds of search are all that time allows."""
        return self.limits.seconds is not None and seconds >= self.limits.seconds

    def allows(self, evals: int, tokens: int) -> bool:
        """Whether the limits on evaluations and tokens leave room for so much work."""
        limits, spent = self.limits, self.spent
        if limits.evals is not None and spent.evals + evals > limits.evals:
            return False
        return limits.tokens is None or spent.tokens + tokens <= limits.tokens

    def charge(self, evals: int, tokens: int) -> bool:
        """Count work as spent if the limits leave room for it; whether they do."""
        if not self.allows(evals, tokens):
            return False
        self.spent.evals += evals
        self.spent.tokens += tokens
        return True

    def clock(self) -> float:
        """Seconds of the search, those of earlier lives included."""
        return self._seconds_before + time.monotonic() - self._started

    def stop_clock(self) -> float:
        """Note the clock's seconds as spent, and give them."""
        self.spent.seconds = self.clock()
        return self.spent.seconds

    def goes_on(self, seconds: float) -> None:
        """Set the clock to what an earlier life of the search had spent."""
        self.spent.seconds = self._seconds_before = seconds
        self._started = time.monotonic()
