"""What records of settings have in common: what a setting is for, and which values none of them takes."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from autoprune.arguments import TRUTH, truth_astray
from autoprune.workload import Phase


@dataclass(frozen=True)
class Panel:
    """What a setting is for: the panel of help that its option is in, and its section in a file of settings."""

    title: str


MODEL, AGENT, BUDGETS = Panel("Model and data"), Panel("Agent"), Panel("Budgets and limits")
LEVELS, SAMPLES, PLACE, RECORD = Panel("Levels"), Panel("Samples"), Panel("Where it runs"), Panel("Record")


class Settings(BaseModel):
    """A frozen record of settings: no names but those of its fields, and no true and false for numbers and texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Accept NumPy's numbers; refuse true and false where a number or a text is asked for."""
        if truth_astray(value, cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(TRUTH)
        if isinstance(value, Integral) and not isinstance(value, bool):
            return int(value)
        return float(value) if isinstance(value, Real) and not isinstance(value, Integral) else value


class WorkloadConfig(Settings):
    """How the network will be used, for metrics that depend on it: `workload.phase=decode workload.batch=8`."""

    phase: Phase = Field(
        "prefill", description="prefill runs whole sequences; decode runs one new token of each sequence"
    )
    batch: int = Field(1, ge=1, description="number of sequences or images in a forward pass")
    context: int | None = Field(
        None, ge=1, description="number of positions of a sequence; the default is sequence_length"
    )
    dtype: str | None = Field(
        None, description="data type for the metric roofline; the default is the one that the search computes in"
    )
    hardware: str | None = Field(
        None, description="device for the metric roofline: a name in devices.yaml, or FILE.yaml[:NAME]"
    )
