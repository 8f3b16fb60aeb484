"""What things are called: words that a task chooses, for the terminal and the reports, and words that all tasks share.

Whatever counts tokens counts a task's own items; keys of files and names in Python say `tokens` for all of them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Form = Literal["percent", "digits", "decimals"]
"""How a number is written: as a share in percent, with four digits, or with four decimals."""


@dataclass(frozen=True)
class Measure:
    """A number that is measured of a network.

    Args:
        key: its key in files.
        name: what people call it.
        form: how it is written.
        better: 1 where more is better, -1 where less is better, 0 where nobody says how much of it was won back.
        averages: whether tables show its mean over several searches.
    """

    key: str
    name: str
    form: Form = "decimals"
    better: Literal[-1, 0, 1] = -1
    averages: bool = False

    def written(self, value: float | None) -> str:
        """A value as people read it."""
        if value is None or not math.isfinite(value):
            return "∞"
        if self.form == "percent":
            return f"{value:.2%}"
        return f"{value:.4g}" if self.form == "digits" else f"{round(value, 4) + 0.0:.4f}"  # no -0.0000


@dataclass(frozen=True)
class Words:
    """The words of a task.

    Args:
        task: the task's name, as files have it.
        item: what is counted.
        sample: what splits are made of, and what losses are first averaged over.
        data: what is read, in general.
        label_loss: the loss against the labels.
        quality: what people know a network's quality by.
        others: what else may be measured, as by fine-tuning.
        units: loss -> what it is counted in.
    """

    task: str = ""
    item: str = "token"
    sample: str = "sequence"
    data: str = "data"
    label_loss: Measure = Measure("ce", "cross-entropy")
    quality: Measure = Measure("ce", "cross-entropy")
    others: tuple[Measure, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def items(self) -> str:
        """Several of what is counted."""
        return f"{self.item}s"

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What tables show of a network besides the loss of the search."""
        return tuple(dict.fromkeys((self.label_loss, self.quality)))

    @property
    def known(self) -> dict[str, Measure]:
        """Every measure by its key; the quality comes first."""
        return {one.key: one for one in (self.quality, self.label_loss, *self.others)}

    def unit(self, loss: str) -> str:
        """What a loss is counted in; its name where the task does not say."""
        return self.units.get(loss, loss)


OF_UNITS = ("params", "macs")
"""Metrics that count what can be pruned and no more: budgets on them bound that, not the whole network."""

GROUPS = {"conv": "channels"}
"""Kinds of units whose groups have a name of their own."""


def groups(kinds: Iterable[str]) -> str:
    """What groups of units of these kinds are called together."""
    names = {GROUPS.get(kind, "groups") for kind in kinds}
    return names.pop() if len(names) == 1 else "groups"


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 10 s`, `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
