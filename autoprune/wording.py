"""What things are called that depend on what a network reads: one place for the terminal and the reports.

Whatever counts tokens counts images where a network reads images; files and Python say `tokens` for both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Task = Literal["text", "images"]


@dataclass(frozen=True)
class Words:
    """The words of a task.

    Args:
        item: what is counted.
        sample: what splits are made of, and losses are first averaged over.
        data: what is read, in general.
        quality: what people know a network's quality by, and the key of it wherever networks are measured.
    """

    item: str
    sample: str
    data: str
    quality: Literal["perplexity", "accuracy"]

    @property
    def items(self) -> str:
        """Several of what is counted."""
        return f"{self.item}s"

    def unit(self, loss: str) -> str:
        """What a loss is in; its name where it is the user's own."""
        named = {"kl": f"nats per {self.item}", "ce": f"nats per {self.item}", "error": "share of wrong answers"}
        return named.get(loss, loss)


WORDS: Mapping[Task, Words] = {
    "text": Words("token", "sequence", "text", "perplexity"),
    "images": Words("image", "sample", "images", "accuracy"),
}

OF_UNITS = ("params", "macs")
"""Metrics that count what can be pruned and no more: budgets on them bound that, not the whole network."""

GROUPS = {"conv": "channels"}
"""Kinds of units whose groups have a name of their own."""


def words(task: Any) -> Words:
    """The words of a task as a file has it; what is not known is text, as it was before there were tasks."""
    return WORDS["images" if task == "images" else "text"]


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
