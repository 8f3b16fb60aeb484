"""What a report is made of: one frozen record of a run.

Keys of levels (autoprune/level.py) stand for proposals here: levels and masks that keep as many groups cost the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from autoprune import live
from autoprune.config import SearchConfig
from autoprune.level import Key, Level
from autoprune.policy import Policy
from autoprune.recovery.result import Finetuned
from autoprune.rounds_file import Rounds
from autoprune.space import SearchSpace
from autoprune.unit_statistics import UnitStatistics
from autoprune.wording import Words


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Row(_Part):
    """A line of the final table; a number is None where it overflowed. Sizes are of the whole network.

    What the task measures is beside these, in `measured`. In runs that have no spread of speeds, which are older, MACs
    are of what can be pruned alone.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    validation_loss: float | None
    params: float | None
    macs: float | None
    tokens_per_second: float | None
    speed_spread: float | None = None
    costs: dict[str, float] = {}

    @property
    def measured(self) -> dict[str, float | None]:
        """What the task measures, by the keys of its measures."""
        return {key.removeprefix("validation_"): value for key, value in (self.model_extra or {}).items()}

    @model_validator(mode="after")
    def _measured_numbers(self) -> "Row":
        for key, value in self.measured.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{key} is no number")
        return self


class Spent(_Part):
    """What the search used."""

    evals: int
    tokens: int
    seconds: float
    training: int = 0


class Result(_Part):
    """`result.json`."""

    table: list[Row]
    spent: Spent
    history: list[tuple[int, float, float | None]]


@dataclass(frozen=True)
class Scored:
    """Everything that was scored of one proposal.

    Args:
        keys: of each unit's level.
        losses: by sequence, nats per token or image as a rule.
        feasible: whether every budget holds; what breaks one was a probe.
        steps: training steps that its network had taken before these losses.
    """

    keys: tuple[Key, ...]
    losses: dict[int, float]
    feasible: bool
    steps: int = 0

    @property
    def loss(self) -> float:
        """The mean over its sequences."""
        total = sum(self.losses.values())
        return total / len(self.losses) if math.isfinite(total) else math.inf


@dataclass(frozen=True)
class Best:
    """The policy that the report is about.

    Args:
        levels: of each unit.
        numbers: of each unit's level among those of the search; None where single groups were searched.
        loss: on the search split.
        sequences: that the loss is the mean of.
    """

    levels: tuple[Level, ...]
    numbers: tuple[int, ...] | None
    loss: float
    sequences: int

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Of each unit's level."""
        return tuple(level.key for level in self.levels)


@dataclass(frozen=True)
class Run:
    """What a report is made of.

    Args:
        scored: in the order in which proposals were first scored.
        best: the policy found, or so far; None while nothing within the budgets is scored.
        spent: by the search so far.
        history: (tokens, seconds, loss of the best so far on its own sample).
        policy: None unless the run is finished, and then so is `result`.
        finetuned: what fine-tuning gave; where its file is damaged, a sentence that says so.
        coverage: how much of the network the units are, in words; None where that is not known.
        rounds: what earlier rounds did; None for a run of one round.
    """

    path: Path
    config: SearchConfig
    space: SearchSpace
    statistics: list[UnitStatistics]
    scored: list[Scored]
    best: Best | None
    spent: Spent
    history: list[tuple[int, float, float]]
    policy: Policy | None
    result: Result | None
    finetuned: Finetuned | str | None = None
    coverage: str | None = None
    rounds: Rounds | None = None

    @property
    def subject(self) -> str:
        """The model by name."""
        return live.shown(self.config.model or "embedded model")

    @property
    def unit_of_loss(self) -> str:
        """What losses are in."""
        return live.shown(self.words.unit(self.config.loss))

    @property
    def words(self) -> Words:
        """What things are called in the network's task."""
        return self.space.words

    @cached_property
    def uniform(self) -> tuple[Key, ...]:
        """Keys of the levels of the uniform policy."""
        return self.space.keys(self.space.uniform())

    def costs(self, metric: str) -> list[Mapping[Key, float]]:
        """For each unit, from a level's key to its cost."""
        if metric in self.space.group_costs:
            return [dict(enumerate(row.tolist())) for row in self.space.group_costs[metric]]
        rows = zip(self.space.units, self.space.rows(metric), strict=True)
        return [{level.key: cost for level, cost in zip(unit.levels, row, strict=True)} for unit, row in rows]

    def used(self, metric: str, keys: Sequence[Key]) -> float:
        """Total of a metric at levels with these keys."""
        return self.space.total(metric, [cost[key] for cost, key in zip(self.costs(metric), keys, strict=True)])

    def row(self, name: str) -> Row | None:
        """A line of the final table by name; None while there is none."""
        return next((row for row in self.result.table if row.name == name), None) if self.result else None
