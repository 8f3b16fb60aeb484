"""The limits of a search and what it has spent: evaluations, tokens, and seconds. A resumed search continues them."""

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on a search; None is unbounded. Tokens are policies x tokens, even if policies share computations."""

    evals: int | None = None
    tokens: int | None = None
    seconds: float | None = None


@dataclass
class Spent:
    """What a search has used. An evaluation is a policy scored on at least one new sequence.

    Slopes and training steps are charged as forward passes, both in evaluations and in tokens.

    Args:
        evals: evaluations.
        tokens: policies x tokens.
        seconds: seconds of the search.
        training: those of the tokens that were charged for training candidates.
    """

    evals: int = 0
    tokens: int = 0
    seconds: float = 0.0
    training: int = 0


class Account:
    """Keeps account of what is spent within limits.

    Args:
        limits: the bounds.

    Attributes:
        spent: the amounts so far. Its seconds are those of the last score, also if that was replayed.
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
        """Share of the tightest limit that is spent, in [0, 1]; 0 without limits. Time is left out."""
        limits, spent = self.limits, self.spent
        shares = [
            spent.evals / limits.evals if limits.evals else 0.0,
            spent.tokens / limits.tokens if limits.tokens else 0.0,
        ]
        return min(1.0, max(shares))

    @property
    def is_late(self) -> bool:
        """Whether the time was over at the last score."""
        return self.is_over(self.spent.seconds)

    def is_over(self, seconds: float) -> bool:
        """Whether this many seconds of search reach the limit on time."""
        return self.limits.seconds is not None and seconds >= self.limits.seconds

    def allows(self, evals: int, tokens: int) -> bool:
        """Whether the limits on evaluations and tokens have room for this much work."""
        limits, spent = self.limits, self.spent
        if limits.evals is not None and spent.evals + evals > limits.evals:
            return False
        return limits.tokens is None or spent.tokens + tokens <= limits.tokens

    def charge(self, evals: int, tokens: int, training: int = 0) -> bool:
        """Count work as spent if the limits have room for it. Returns whether they have.

        Args:
            evals: evaluations.
            tokens: tokens.
            training: those of the tokens that are charged for training.
        """
        if not self.allows(evals, tokens):
            return False
        self.spent.evals += evals
        self.spent.tokens += tokens
        self.spent.training += training
        return True

    def take_back(self, before: Spent) -> None:
        """Count work that was charged and not done as not spent. Seconds stay spent."""
        spent = self.spent
        spent.evals, spent.tokens, spent.training = before.evals, before.tokens, before.training

    def clock(self) -> float:
        """Seconds of the search, including those before an interruption."""
        return self._seconds_before + time.monotonic() - self._started

    def stop_clock(self) -> float:
        """Record the clock's seconds as spent, and return them."""
        self.spent.seconds = self.clock()
        return self.spent.seconds

    def goes_on(self, seconds: float) -> None:
        """Set the clock to the seconds that the search had spent before it was interrupted. It never runs backwards."""
        self.spent.seconds = self._seconds_before = max(seconds, self.spent.seconds)
        self._started = time.monotonic()
