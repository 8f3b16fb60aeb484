"""What the network will be run on: metrics that depend on it take it from here."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class Workload:
    """One forward pass of the network in use.

    Args:
        context: positions that attention looks at: the length of the sequences in prefill, what is cached in decode.
        batch: sequences.
        phase: prefill runs all positions of every sequence, decode one new token of each behind `context` others.
        dtype: what is computed in, as torch names it; None is what the search computes in.
        hardware: of the metric `roofline`: a name of autoprune/budgets/devices.yaml, or a YAML file of that form.
    """

    context: int
    batch: int = 1
    phase: Phase = "prefill"
    dtype: str | None = None
    hardware: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens that pass through the network."""
        return self.batch * (self.context if self.phase == "prefill" else 1)
