"""The file `result.json` of a run, and a result from a run's directory: nothing but files is read."""

import math
from functools import partial
from pathlib import Path
from typing import Any

from autoprune import rundir
from autoprune.files.reading import explained, read_json
from autoprune.objective import Spent
from autoprune.policy import Policy
from autoprune.result import SearchResult, opened
from autoprune.space_file import load_space
from autoprune.validation import Row

FILE = "result.json"


def load_result(path: Path) -> SearchResult:
    """The result of a run that has one. The network and its data are loaded when they are needed.

    Raises:
        UserError: there is no run, it has no result yet, or a file is damaged.
    """
    policy = Policy.load(rundir.policy_path(path))
    space, _ = load_space(path / "space.json")
    with explained("the result", path / FILE, f"`autoprune resume {path}` writes it anew"):
        record = read_json(path / FILE)
        table, front = ([Row.of(_finite(row)) for row in record.get(name, ())] for name in ("table", "front"))
        history = [(int(tokens), float(seconds), _number(loss)) for tokens, seconds, loss in record["history"]]
        spent = Spent(**record["spent"])
        loss = next(row for row in table if row.name == "best").validation_loss
        interrupted = bool(record.get("interrupted", False))
    return SearchResult(policy, loss, history, path, table, front, spent, interrupted, space, [], partial(opened, path))


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the file; what overflowed is null there."""
    return {key: math.inf if value is None else value for key, value in row.items()}


def _number(value: float | None) -> float:
    return math.inf if value is None else float(value)
