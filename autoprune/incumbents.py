"""What a search would have answered, and since when."""

from typing import NamedTuple

from autoprune.space import Proposal


class Answer(NamedTuple):
    """What a search would have answered from here on.

    Args:
        tokens: spent by then.
        seconds: likewise.
        proposal: the policy.
    """

    tokens: int
    seconds: float
    proposal: Proposal


def remember(known: list[Answer], answer: Answer) -> None:
    """Add an answer if its policy is new. Of two answers at the same number of tokens the later one holds."""
    if known and known[-1].tokens == answer.tokens:
        known.pop()
    if not known or known[-1].proposal != answer.proposal:
        known.append(answer)
