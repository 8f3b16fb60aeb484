"""What fine-tuning left in a run, `RUN/finetuned/result.json`, for those who show it.

    {"tuning": {"epochs": 10, ...}, "chosen": "trained", "dense": {"ce": ..., "accuracy": ...}, "uniform": {...},
     "before": {...}, "refitted": {...}, "after": {...}, "law": {"missed": 0.01, "forecasts": [...], ...}}

The networks have been measured on the validation split. `uniform` is the uniform policy at the same budget, which the
search measured. `after` is the chosen network, and `chosen` is its name: "before", "refitted" or "trained". `trained`
is present if another network was chosen. The task decides what is measured; it is shown as it is in the file.
`seconds`, the duration of the training, is optional. So is `law`, which says what more tokens would buy
(recovery/law.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autoprune.files.reading import explained, read_json
from autoprune.policy import Policy
from autoprune.task_choice import measure
from autoprune.wording import Words

STAGES = {"dense": "dense", "uniform": "uniform", "before": "found", "refitted": "refitted", "trained": "trained",
          "after": "recovered"}  # fmt: skip
"""Keys of `result.json`, and what tables call these networks, in the order of tables."""
Number = float | None


class Forecast(BaseModel):
    """What more tokens would buy.

    Args:
        times: so many times the tokens of the training.
        tokens: in all.
        loss: the validation loss against the labels.
        low: the lower end of its interval.
        high: the upper end.
    """

    model_config = ConfigDict(frozen=True)

    times: float
    tokens: int
    loss: float
    low: float
    high: float


class Lawful(BaseModel):
    """The law of recovery of a training; `missed` is what the law of its first half missed of the rest."""

    model_config = ConfigDict(frozen=True, extra="allow")

    missed: float
    forecasts: list[Forecast]


class Finetuned(BaseModel):
    """`result.json`; a number is None where it overflowed."""

    model_config = ConfigDict(frozen=True)

    tuning: dict[str, Any]
    dense: dict[str, Number]
    uniform: dict[str, Number] | None = None
    before: dict[str, Number]
    refitted: dict[str, Number] | None = None
    trained: dict[str, Number] | None = None
    chosen: str | None = None
    after: dict[str, Number]
    seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    law: Lawful | None = None

    @property
    def rows(self) -> Mapping[str, Mapping[str, Number]]:
        """The networks by name, as a table has them."""
        named = {name: getattr(self, key) for key, name in STAGES.items()}
        return {name: row for name, row in named.items() if row is not None}

    @property
    def keys(self) -> list[str]:
        """Everything that was measured of any of them."""
        return list(dict.fromkeys(key for row in self.rows.values() for key in row))

    def table(self, words: Words) -> list[list[str]]:
        """The measurements as text: a row of heads, and one for each network."""
        known = {key: measure(key, words) for key in self.keys}
        heads = ["", *(one.name for one in known.values())]
        return [heads, *([name, *_cells(row, known)] for name, row in self.rows.items())]


def _cells(row: Mapping[str, Number], known: Mapping[str, Any]) -> list[str]:
    return [one.written(row[key]) if key in row else "" for key, one in known.items()]


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


def uniform_row(policy: Policy, keys: Sequence[str]) -> dict[str, float] | None:
    """What the search measured of the uniform policy on the validation split; None in runs that did not.

    Args:
        policy: of the run.
        keys: what fine-tuning measures.
    """
    row = (policy.losses.get("validation") or {}).get("uniform")
    if not isinstance(row, dict):
        return None
    own = {str(policy.provenance.get("loss")): row.get("loss")} | row
    return {key: float(value) for key in keys if isinstance(value := own.get(key), int | float)} or None


def forecast_told(law: Lawful | None, words: Words) -> str | None:
    """A sentence about what more tokens would buy; None where nothing is known of it."""
    if law is None or not law.forecasts:
        return None
    label = words.label_loss
    told = [
        f"{one.times:g} times the {words.items} ({one.tokens:,}) {label.written(one.loss)} "
        f"({label.written(one.low)} to {label.written(one.high)})"
        for one in law.forecasts
    ]
    return (
        f"By the law of this training more of such data would give the {label.name}: with {', with '.join(told)}. "
        f"The law of its first half missed the rest by up to {label.written(law.missed)}."
    )
