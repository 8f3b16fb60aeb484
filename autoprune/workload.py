"""What the network will be run on: metrics that depend on it take it from here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """Args:
    context: positions that attention looks at.
    """

    context: int
