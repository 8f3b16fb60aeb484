"""The words of messages and reports: those that a task chooses, and those that all tasks share.

Names in Python and keys in files say `tokens` for the items of any task.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Form = Literal["percent", "digits", "decimals"]
"""The format of a number: a percentage, four significant digits, or four decimals."""


@dataclass(frozen=True)
class Measure:
    """The description of a number that is measured on a network.

    Args:
        key: its key in files.
        name: what people call it.
        form: how it is written.
        better: 1 if more is better, -1 if less is better, 0 if reports do not say how much of it was recovered.
        averages: whether tables show its mean over searches.
    """

    key: str
    name: str
    form: Form = "decimals"
    better: Literal[-1, 0, 1] = -1
    averages: bool = False

    def written(self, value: float | None) -> str:
        """Format a value for people."""
        if value is None or not math.isfinite(value):
            return "∞"
        if self.form == "percent":
            return f"{value:.2%}"
        return f"{value:.4g}" if self.form == "digits" else f"{round(value, 4) + 0.0:.4f}"  # no -0.0000


@dataclass(frozen=True)
class Words:
    """The words of a task.

    Args:
        task: the task's name in files.
        item: the word for what is counted, such as a token.
        sample: the word for what splits are made of. Losses are first averaged over a sample.
        data: the word for the data.
        label_loss: the loss against the labels.
        quality: the usual measure of a network's quality.
        others: further measures, such as those of fine-tuning.
        units: loss -> its unit of measurement.
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
        """The plural of `item`."""
        return f"{self.item}s"

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that tables show besides the loss of the search."""
        return tuple(dict.fromkeys((self.label_loss, self.quality)))

    @property
    def known(self) -> dict[str, Measure]:
        """Every measure by its key; the quality comes first."""
        return {one.key: one for one in (self.quality, self.label_loss, *self.others)}

    def unit(self, loss: str) -> str:
        """The unit of measurement of a loss; the loss's name if the task does not say."""
        return self.units.get(loss, loss)


OF_UNITS = {"params": "parameters", "macs": "multiply-accumulates"}
"""Metrics whose bounds are of the part that can be pruned or of the whole network, as the setting `of` says. The values
are words for what they count."""

STORED = ("memory",)
"""Metrics that count how weights are stored, in the whole network: embeddings and head are units, too, where a form can
have them."""

GROUPS = {"conv": "channels"}
"""Kinds of units whose groups have a name of their own."""


def groups(kinds: Iterable[str]) -> str:
    """The common word for groups of units of these kinds."""
    names = {GROUPS.get(kind, "groups") for kind in kinds}
    return names.pop() if len(names) == 1 else "groups"


def count(number: int, thing: str) -> str:
    """`1 evaluation`, `1,024 evaluations`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 10 s`, `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
