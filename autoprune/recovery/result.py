"""What fine-tuning left in a run, `RUN/finetuned/result.json`, for those who show it.

    {"tuning": {"epochs": 10, ...}, "chosen": "trained", "dense": {"ce": ..., "accuracy": ...}, "before": {...},
     "refitted": {...}, "after": {...}}

The networks have been measured on the validation split. `after` is the chosen network, and `chosen` is its name:
"before", "refitted" or "trained". `trained` is present if another network was chosen. The task decides what is
measured; it is shown as it is in the file. `seconds`, the duration of the training, is optional.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autoprune.errors import UserError
from autoprune.files.reading import explained, read_json
from autoprune.policy import Policy
from autoprune.task_choice import measure
from autoprune.wording import Words

LOST = 1e-9  # less is nothing to win back


class Finetuned(BaseModel):
    """`result.json`; a number is None where it overflowed."""

    model_config = ConfigDict(frozen=True)

    tuning: dict[str, Any]
    dense: dict[str, float | None]
    before: dict[str, float | None]
    refitted: dict[str, float | None] | None = None
    trained: dict[str, float | None] | None = None
    chosen: str | None = None
    after: dict[str, float | None]
    seconds: float | None = Field(None, ge=0, allow_inf_nan=False)

    @property
    def rows(self) -> Mapping[str, Mapping[str, float | None]]:
        """The networks by name, as a table has them."""
        named = {"dense": self.dense, "before": self.before, "refitted": self.refitted, "trained": self.trained}
        return {name: row for name, row in (named | {"after": self.after}).items() if row is not None}

    @property
    def keys(self) -> list[str]:
        """Everything that was measured of any of them."""
        return list(dict.fromkeys(key for row in self.rows.values() for key in row))


def read_finetuned(run: Path) -> Finetuned | None:
    """What is there of a run; None where it was not fine-tuned to the end.

    Raises:
        UserError: the file is damaged or cannot be read.
    """
    path = run / "finetuned" / "result.json"
    if not path.is_file():
        return None
    with explained("the result", path, "`autoprune finetune` with the same settings writes it anew"):
        return Finetuned.model_validate(read_json(path))


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
    told = [f"Of what pruning lost, fine-tuning won back {' and '.join(shares)}."] if shares else []
    told += [f"It lost another {' and '.join(worse)}."] if worse else []
    told += ["Training made the refitted network worse: that one is the result."] if done.trained else []
    return " ".join(told) or None
