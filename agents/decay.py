"""A number that falls to 0 with what is spent of a search's limits, where stable-baselines3 takes a schedule."""


class Decay:
    """Linear in `progress`, which the search sets. What SB3 thinks is left of training plays no part: a search ends
    by tokens, and a batch costs more of them as samples widen.

    Args:
        start: the value at the start.
    """

    def __init__(self, start: float) -> None:
        self.start, self.progress = start, 0.0

    def __call__(self, _: float) -> float:
        """The value now."""
        return self.start * (1 - self.progress)
