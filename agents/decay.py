"""A schedule for stable-baselines3 that falls to 0 as the limits of a search are spent."""


class Decay:
    """Linear in `progress`, which the search sets. The progress that stable-baselines3 computes is ignored: a search
    ends by tokens, and a batch costs more of them as samples grow.

    Args:
        start: the value at the start.
    """

    def __init__(self, start: float) -> None:
        self.start, self.progress = start, 0.0

    def __call__(self, _: float) -> float:
        """The value now."""
        return self.start * (1 - self.progress)
