"""The file `rounds.json` of a run of several rounds: how its budgets and limits are shared, and what rounds have done.

    {"schema": "autoprune.rounds/1",
     "plan": {"rounds": 2, "shares": {"params": 0.5}, "round_tokens": 50000, "charged": 4,
              "limits": {"max_tokens": ...}},
     "done": [{"number": 1, "shares": {"params": 0.7}, "search": {"evals": ..., "tokens": ..., ...},
               "trained": 49152, "training": {"evals": ..., "tokens": ..., ...},
               "found": {"ce": ...}, "recovered": {"ce": ...}, "dense": {"ce": ...}}]}

The last round is the run itself, and is not in `done`.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from autoprune.files.reading import explained, read_json
from autoprune.files.writing import write_atomically
from autoprune.policy import to_json
from autoprune.spending import Spent

FILE = "rounds.json"
SCHEMA: Literal["autoprune.rounds/1"] = "autoprune.rounds/1"
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class RoundsPlan(_Part):
    """How budgets and limits are shared among rounds.

    Args:
        rounds: the number of searches.
        shares: metric -> share of the dense network's total that the last budget is.
        round_tokens: tokens, or images, that are trained on between two rounds.
        charged: tokens that a token of training is charged as.
        limits: limits of each search, by the names of settings.
    """

    rounds: Annotated[int, Field(ge=2)]
    shares: dict[str, Share]
    round_tokens: Annotated[int, Field(gt=0)]
    charged: Count
    limits: dict[str, Any]

    def shares_of(self, number: int) -> dict[str, float]:
        """The budgets of a round in shares of the dense network: every round keeps the same share of what is left."""
        return {metric: share ** (number / self.rounds) for metric, share in self.shares.items()}


class RoundDone(_Part):
    """One round before the last: a search, and the training behind it.

    Args:
        number: of the round, from 1.
        shares: its budgets, in shares of the dense network.
        search: what the search spent.
        trained: tokens, or images, trained on.
        training: what the training is charged as.
        dense: measurements of the original dense network on the validation split.
        found: of the network that the search found.
        recovered: of the network that the next round starts from.
    """

    number: Annotated[int, Field(ge=1)]
    shares: dict[str, Share]
    search: Spent
    trained: Count
    training: Spent
    dense: dict[str, float | None]
    found: dict[str, float | None]
    recovered: dict[str, float | None]


class Rounds(_Part):
    """The file.

    Args:
        plan: how budgets and limits are shared.
        done: the rounds that have ended, in order.
    """

    plan: RoundsPlan
    done: tuple[RoundDone, ...] = ()

    def save(self, run: Path) -> None:
        """Write the file.

        Raises:
            UserError: the disk is full or not writable.
        """
        record = {"schema": SCHEMA, "plan": self.plan.model_dump(), "done": [_record(one) for one in self.done]}
        write_atomically(run / FILE, to_json(record) + "\n")

    def with_done(self, one: RoundDone) -> "Rounds":
        """The same with a round that has ended, in the place of what was known of it and of those behind it."""
        return Rounds(plan=self.plan, done=(*self.done[: one.number - 1], one))


def _record(one: RoundDone) -> dict[str, Any]:
    return one.model_dump() | {"search": asdict(one.search), "training": asdict(one.training)}


def read_rounds(run: Path) -> Rounds | None:
    """The file of a run; None if it has none.

    Raises:
        UserError: it is damaged.
    """
    if not (run / FILE).is_file():
        return None
    with explained("the file of rounds", run / FILE, f"delete it, and `autoprune resume {run}` writes it anew"):
        record = read_json(run / FILE)
        if record.pop("schema", None) != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        return Rounds.model_validate(record)


def with_earlier(run: Path, spent: Spent) -> Spent:
    """What all rounds of a run have spent.

    Args:
        run: its directory.
        spent: by its last search.
    """
    known = read_rounds(run)
    if known is None:
        return spent
    return added(spent, *(part for one in known.done for part in (one.search, one.training)))


def added(*parts: Spent) -> Spent:
    """The sum of what was spent."""
    sums = {name: sum(getattr(part, name) for part in parts) for name in vars(Spent())}
    return Spent(**sums)
