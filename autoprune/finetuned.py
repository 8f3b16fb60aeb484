"""What fine-tuning left in a run, `RUN/finetuned/result.json`, for those who show it.

    {"tuning": {"epochs": 10, ...}, "chosen": "trained", "dense": {"ce": ..., "accuracy": ...}, "before": {...},
     "refitted": {...}, "after": {...}}

The networks have been measured on the validation split. `after` is the one that was handed over, `chosen` which it is:
"before", "refitted" or "trained". `trained` is there where another one was chosen. What was measured is up to who
fine-tunes: it is shown as it is there. `seconds`, which the training took, is optional.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autoprune.files.reading import explained, read_json

NAMES = {"ce": "cross-entropy", "kl": "divergence from dense"}
BETTER = {"accuracy": 1, "ce": -1, "kl": -1}
"""Which numbers say that something was lost: 1 where more is better."""
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


def named(key: str) -> str:
    """What a measured number is called."""
    return NAMES.get(key, key.replace("_", " "))


def written(key: str, value: float | None) -> str:
    """A measured number as people read it: accuracies in percent, perplexities in four digits, losses in decimals."""
    if value is None or not math.isfinite(value):
        return "∞"
    if key == "accuracy":
        return f"{value:.2%}"
    return f"{value:.4g}" if key == "perplexity" else f"{round(value, 4) + 0.0:.4f}"  # no -0.0000


def won_back(done: Finetuned) -> str | None:
    """What share of pruning's loss fine-tuning won back, and what it lost more; None where nothing was lost."""
    if done.chosen == "before" and (done.refitted or done.trained):
        return "Whatever was tried made it worse: the network as it was found is the result."
    shares: list[str] = []
    worse: list[str] = []
    for key, sign in BETTER.items():
        known = [row.get(key) for row in (done.dense, done.before, done.after)]
        dense, before, after = (math.nan if value is None else value for value in known)
        lost = sign * (dense - before)
        if lost > LOST and math.isfinite(lost) and math.isfinite(after):
            won = sign * (after - before) / lost
            (shares if won >= 0 else worse).append(f"{abs(won):.0%} of the {named(key)}")
    told = [f"Of what pruning lost, fine-tuning won back {' and '.join(shares)}."] if shares else []
    told += [f"It lost another {' and '.join(worse)}."] if worse else []
    told += ["Training made the refitted network worse: that one is the result."] if done.trained else []
    return " ".join(told) or None
