"""The workload: how the network will be used, for metrics that depend on it."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class Workload:
    """One forward pass of the network in use.

    Args:
        context: number of positions that attention reads: the sequence length in prefill, the cached positions in
            decode.
        batch: sequences.
        phase: prefill runs all positions of every sequence; decode runs one new token of each after `context` others.
        dtype: data type to compute in, by torch's name; None is the one of the search.
        hardware: device for the metric `roofline`: a name in autoprune/budgets/devices.yaml, or a YAML file of that
            form.
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
