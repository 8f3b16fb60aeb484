"""What fine-tuning left in a run (fine_tuned.py has the file), and what it won back."""

import math
from pathlib import Path

from autoprune.errors import UserError
from autoprune.fine_tuned import Finetuned, read_finetuned
from autoprune.policy import Policy
from autoprune.task_choice import measure
from autoprune.wording import Words

__all__ = ["Finetuned", "finetuned_network", "of_earlier_policy", "read_finetuned", "won_back"]

LOST = 1e-9  # less is nothing to win back


def finetuned_network(run: Path) -> Path:
    """The export that fine-tuning a run leaves there."""
    return run / "finetuned" / "network"


def of_earlier_policy(run: Path, policy: Policy) -> str | None:
    """A sentence where the fine-tuned network is of another policy than the run's, as after `resume`; otherwise None.

    Args:
        run: its directory.
        policy: the run's policy of today.
    """
    file = finetuned_network(run) / "policy.json"
    try:
        tuned = Policy.load(file) if file.is_file() else policy
    except UserError:
        return None
    if [unit.as_level for unit in tuned.units] == [unit.as_level for unit in policy.units]:
        return None
    folder = run / "finetuned"
    return f"The fine-tuning in '{folder}' is of an earlier policy of this run: delete that folder and fine-tune again."


def won_back(done: Finetuned, words: Words | None = None) -> str | None:
    """What share of pruning's loss fine-tuning won back, and what it lost more; None where nothing was lost.

    Args:
        done: what fine-tuning left.
        words: of the task, where that is known.
    """
    if done.chosen == "before" and (done.refitted or done.trained):
        return "Whatever was tried made it worse: the network as it was found is the result."
    shares: list[str] = []
    worse: list[str] = []
    order = list(words.known) if words else done.keys
    for key in sorted(done.keys, key=lambda key: order.index(key) if key in order else len(order)):
        one = measure(key, words)
        sign = one.better
        known = [row.get(key) for row in (done.dense, done.before, done.after)]
        dense, before, after = (math.nan if value is None else value for value in known)
        lost = sign * (dense - before)
        if lost > LOST and math.isfinite(lost) and math.isfinite(after):
            won = sign * (after - before) / lost
            (shares if won >= 0 else worse).append(f"{abs(won):.0%} of the {one.name}")
    told = [f"Of what pruning lost, refit and fine-tuning won back {' and '.join(shares)}."] if shares else []
    told += [f"They lost another {' and '.join(worse)}."] if worse else []
    told += ["Training made the refitted network worse: that one is the result."] if done.trained else []
    return " ".join(told) or None
