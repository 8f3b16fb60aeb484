"""The space file of a run, `space.json`: units, costs, budgets and statistics, so that reports need no network.

Schema `autoprune.space/1`:

    {"schema": "autoprune.space/1", "task": "text" or "images",
     "units": [{"name": "3.mlp", "kind": "mlp", "block": 3, "groups": 512, "kept": [512, 448, ...], ...}, ...],
     "costs": {"params": [[cost at level 0, at level 1, ...] of each unit], ...},
     "group_costs": {"params": [[cost of 0 groups, of 1, ...] of each unit], ...},
     "budgets": {"params": <absolute bound>},
     "fixed": {"latency": <what is paid whatever the policy>, ...},
     "peaks": [names of the metrics of which the largest cost counts, not the sum],
     "statistics": [{"weight_norm": ..., ...} of each unit, or nothing]}

`group_costs` is there where masks were searched.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoprune.errors import UserError
from autoprune.files.writing import write_atomically
from autoprune.policy import to_json
from autoprune.space import SearchSpace, Unit
from autoprune.statistics import UnitStatistics
from autoprune.wording import WORDS, Task

SCHEMA = "autoprune.space/1"


def save_space(path: Path, space: SearchSpace, statistics: Sequence[UnitStatistics] = ()) -> None:
    """Write the space file.

    Raises:
        UserError: the disk is full or not writable.
    """
    record = {
        "schema": SCHEMA,
        "task": space.task,
        "units": [asdict(unit) for unit in space.units],
        "costs": {metric: space.rows(metric) for metric in space.costs},
        "group_costs": {metric: [row.tolist() for row in rows] for metric, rows in space.group_costs.items()},
        "budgets": space.budgets,
        "fixed": space.fixed,
        "peaks": sorted(space.peaks),
        "statistics": [asdict(one) for one in statistics],
    }
    write_atomically(path, to_json(record) + "\n")


def task_of(run: Path) -> Task | None:
    """What the network of a run reads; None where that is not known yet."""
    try:
        record = json.loads((run / "space.json").read_text(encoding="utf-8"))
        task: Task = record.get("task", "text")
    except (OSError, ValueError, AttributeError):
        return None
    return task if task in ("text", "images") else None


def load_space(path: Path) -> tuple[SearchSpace, list[UnitStatistics]]:
    """Read it back.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise ValueError(f"its schema is {record['schema']!r}, and {SCHEMA!r} is read here")
        units = [Unit(**{**unit, "kept": tuple(unit["kept"])}) for unit in record["units"]]
        # files of earlier versions have none of these
        fixed, task, peaks = record.get("fixed"), record.get("task", "text"), record.get("peaks", ())
        if task not in WORDS:
            raise ValueError(f"its task is {task!r}")
        costs = record["costs"], record["budgets"], record["group_costs"]
        space = SearchSpace(units, *costs, fixed, task=task, peaks=peaks)
        statistics = [
            UnitStatistics(**{**one, "output_errors": tuple(one["output_errors"])}) for one in record["statistics"]
        ]
    except OSError as error:
        raise UserError(f"no space file at '{path}' ({error.strerror}).") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"the space file '{path}' is damaged ({error}): `autoprune resume` writes it anew.") from error
    return space, statistics
