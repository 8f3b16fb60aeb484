"""What `league.json` must hold, so that whoever shows it need not look again (results.py says what it means)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autoprune.task_choice import words_of

Number = float | None
"""None where it overflowed, or is not known."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Measured(_Part):
    """A policy on the validation split, with whatever its task measures."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number]

    loss: Number
    params: Number
    macs: Number


class Found(Measured):
    """What a search has left."""

    run: str
    policy: str
    search_loss: Number
    search_tokens: Number
    tokens: int
    evals: int
    seconds: float
    curve: list[Annotated[list[Number], Field(min_length=3, max_length=3)]]

    @model_validator(mode="after")
    def _known_axes(self) -> "Found":
        if any(point[0] is None or point[1] is None for point in self.curve):
            raise ValueError("a curve's tokens and seconds are numbers")
        return self


class Ended(Found):
    """A search that has ended."""

    agent: str
    seed: int


class Failed(_Part):
    """A search without an answer."""

    agent: str
    seed: int
    run: str
    failed: str


class End(_Part):
    """One seed of an agent."""

    seed: int
    loss: Number


class Row(_Part):
    """A row of the table."""

    rank: int
    agent: str
    seeds: int
    failed: int
    loss: Number
    sd: Number
    best: End | None
    worst: End | None
    search_loss: Number
    tokens: Number
    evals: Number
    seconds: Number
    behind: Number
    behind_error: Number

    @model_validator(mode="after")
    def _has_ends(self) -> "Row":
        if self.seeds and (self.best is None or self.worst is None or self.tokens is None or self.evals is None):
            raise ValueError("an agent with seeds has a best one, a worst one, and what they took")
        return self


class Config(_Part):
    """What of the common settings is shown; the others are as they are."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    loss: str
    budgets: dict[str, float]
    max_tokens: Number = None
    max_evals: Number = None
    max_time: Number = None


class ComparisonFile(_Part):
    """The file."""

    schema_: Literal["autoprune.league/1"] = Field(alias="schema")
    task: str | None = None
    words: dict[str, Any] | None = None
    config: Config
    agents: list[str]
    seeds: list[int]
    references: dict[str, Measured]
    searches: list[Failed | Ended]
    table: list[Row]

    @model_validator(mode="after")
    def _measures_what_its_task_does(self) -> "ComparisonFile":
        words = words_of(self.model_dump(include={"task", "words"}, exclude_unset=True))
        for one in (*self.references.values(), *self.searches):
            lacking = [known.key for known in words.measures if known.key not in (one.model_extra or {})]
            if lacking and not isinstance(one, Failed):
                raise ValueError(f"it lacks {lacking[0]} of a policy")
        return self

    @model_validator(mode="after")
    def _knows_its_agents(self) -> "ComparisonFile":
        if {one.agent for one in self.searches} - {row.agent for row in self.table}:
            raise ValueError("its table lacks an agent")
        return self
