"""What people are told about the refit of a policy."""

from autoprune.policy import Policy
from autoprune.wording import Words, count


def told(policy: Policy, words: Words | None = None) -> str | None:
    """A sentence about the refit of a policy; None where there is none.

    Args:
        policy: of a run.
        words: of its task.
    """
    known = policy.refit
    if known is None:
        return None
    on = f"{known.sequences:,} sequences" if words is None else count(known.sequences, words.sample)
    took = f" in {known.seconds:.1f} s" if known.seconds else ""
    loss = known.found.get("loss")
    as_found = "" if loss is None else f" As the search found it, its loss is {loss:.4f}."
    return f"{policy.called} is refitted on {on} of the reconstruction split{took}, and exported so.{as_found}"
