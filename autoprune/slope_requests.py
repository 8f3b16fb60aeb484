"""A request for slopes: charged, replayed where the journal has it, and journalled where it is new."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import LimitReached
from autoprune.journal import Estimate, Journal, Replay
from autoprune.ports.scorer import Scorer
from autoprune.space import Levels
from autoprune.spending import Account


def requested_slopes(
    scorer: Scorer, account: Account, replay: Replay, journal: Journal, policy: Levels, sequences: Sequence[int]
) -> tuple[NDArray[np.float64] | None, int]:
    """Slopes around a policy, as `Objective.slopes`, and the number of tokens that were computed for them.

    Args:
        scorer: computes what is new. It has slopes.
        account: is charged.
        replay: what the interrupted search had computed.
        journal: gets what is new.
        policy: around which they are.
        sequences: their numbers.

    Raises:
        LimitReached: the limits have no room for it.
    """
    passes = scorer.slope_passes * len(sequences)
    tokens, computed = passes * scorer.tokens_per_sequence, 0
    if account.is_late or not account.allows(passes, tokens):
        raise LimitReached
    replayed = replay.take_estimate(policy, sequences)
    if replayed is not None:
        slopes_UL = np.array(replayed.slopes)
        account.goes_on(replayed.seconds)
    else:
        found_UL = scorer.slopes(policy, sequences)
        if found_UL is None:
            return None, 0
        slopes_UL, computed = np.asarray(found_UL), tokens
        journal.append_estimate(Estimate(policy, tuple(sequences), slopes_UL.tolist(), account.stop_clock()))
    account.charge(passes, tokens)
    return slopes_UL, computed
