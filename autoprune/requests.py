"""Checks of what an agent asks an objective for. A mistake is the agent's, so it is a ValueError."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from autoprune.mask import Mask
from autoprune.space import Proposal, SearchSpace


def plain(policy: Proposal) -> Proposal:
    """A policy as it is remembered, whatever an agent writes it as."""
    return policy if isinstance(policy, Mask) else tuple(map(int, policy))


def checked_steps(steps: Any) -> int:
    """A number of training steps as an int, which JSON can hold; NumPy's cannot be written.

    Raises:
        ValueError: it is no whole number of at least 0.
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 0:
        raise ValueError(f"an agent asked for losses after {steps!r} training steps: a whole number, at least 0")
    return int(steps)


def checked_policies(policies: Sequence[Proposal], space: SearchSpace, budgets_hold: bool) -> list[Proposal]:
    """Policies as they are remembered.

    Args:
        policies: what an agent proposed.
        space: the units, levels and budgets.
        budgets_hold: whether a policy that breaks a budget is refused.

    Raises:
        UserError: a policy does not fit the space.
        ValueError: it breaks a budget.
    """
    remembered = [plain(policy) for policy in policies]
    for policy in remembered:
        space.check(policy)
        if budgets_hold and not space.feasible(policy):
            raise ValueError(f"an agent proposed {policy}, which breaks a budget; use space.repair")
    return remembered


def check_sequences(sequences: Sequence[int], count: int) -> None:
    """Raise a ValueError where a sequence does not exist.

    Args:
        sequences: numbers of sequences.
        count: sequences of the search split.
    """
    strange = [s for s in sequences if not 0 <= s < count]
    if strange:
        raise ValueError(f"an agent asked for sequence {strange[0]}; there are 0 to {count - 1}")
