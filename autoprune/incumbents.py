"""The best policies of a search over time."""

from typing import NamedTuple

from autoprune.space import Proposal


class Answer(NamedTuple):
    """The answer of a search from this point on.

    Args:
        tokens: tokens spent until then.
        seconds: seconds spent until then.
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
