"""How the networks of candidates are trained before they are compared: the settings that an agent chooses."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

Trainer = Literal["refit", "norms", "lora", "full"]
TRAINERS: tuple[Trainer, ...] = ("refit", "norms", "lora", "full")
"""What can be trained, the cheapest first."""


@dataclass(frozen=True)
class CandidateTraining:
    """Settings of the training of candidates.

    Args:
        trainer: what is trained. `refit` solves consumers in closed form, and each step is one sequence that it reads;
            `norms` trains norms, biases and scales alone (Zimmer et al. 2023, "PERP"); `lora` trains low-rank adapters;
            `full` trains all weights.
        refit_sequences: sequences for a refit in closed form before the first step; 0 is none.
        rank: rank of the adapters.
        lr: learning rate; None is the default of fine-tuning for this network.
    """

    trainer: Trainer = "full"
    refit_sequences: NonNegativeInt = 0
    rank: PositiveInt = 8
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
