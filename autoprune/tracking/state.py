"""What trackers have been told of a run, `tracking/state.json`, so that a run that goes on is told nothing twice.

    {"csv": {"search": {"id": null, "settings": "1f2e...", "steps": {"scores": 51200, "best": 49152},
                        "marks": {"scores": [""], "best": ["0.1875"]}}}}

The step is written before the numbers are: a killed process may lose the numbers of one step, and doubles none.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.files.reading import DAMAGE, read_json
from autoprune.files.writing import write_atomically

FILE = "state.json"


class State:
    """What one tracker has been told of one kind of run.

    Args:
        folder: of the run's trackers.
        tracker: its name.
        kind: of the run.
        settings: of the run. Another training in the same folder begins anew.

    Attributes:
        id: what the tracker calls the run; None where it begins.
    """

    def __init__(self, folder: Path, tracker: str, kind: str, settings: Mapping[str, Any]) -> None:
        self._file, self._keys = folder / FILE, (tracker, kind)
        # a run keeps its settings, but for limits and places; a fine-tuning may be begun again with others
        told = settings if kind == "recovery" else {}
        self._mark = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
        known = self._record().get(tracker, {}).get(kind, {})
        same = isinstance(known, dict) and known.get("settings") == self._mark
        self.id: str | None = known.get("id") if same else None
        steps, marks = (known.get(key) if same else None for key in ("steps", "marks"))
        self._steps: dict[str, int] = dict(steps) if isinstance(steps, dict) else {}
        self._marks: dict[str, list[str]] = dict(marks) if isinstance(marks, dict) else {}

    def is_new(self, moment: str, step: int, mark: str = "") -> bool:
        """Whether numbers of this moment and step have not been told. They count as told from now on.

        Args:
            moment: its steps are counted by themselves.
            step: the step.
            mark: tells numbers of one step apart.
        """
        last, marks = self._steps.get(moment, -1), self._marks.get(moment, [])
        if step < last or (step == last and mark in marks):
            return False
        self._steps[moment], self._marks[moment] = step, [*(marks if step == last else []), mark]
        self.save()
        return True

    @property
    def moments(self) -> set[str]:
        """The moments of which something has been told."""
        return set(self._steps)

    @property
    def last(self) -> int:
        """The last step of any moment; -1 where nothing has been told."""
        return max(self._steps.values(), default=-1)

    def save(self) -> None:
        """Write the file."""
        tracker, kind = self._keys
        record = self._record()
        own = {"id": self.id, "settings": self._mark, "steps": self._steps, "marks": self._marks}
        record[tracker] = {**record.get(tracker, {}), kind: own}
        write_atomically(self._file, json.dumps(record, indent=1) + "\n")

    def _record(self) -> dict[str, Any]:
        """All of the file; empty where there is none that can be read."""
        try:
            record = read_json(self._file)
            return record if isinstance(record, dict) else {}
        except (OSError, *DAMAGE):
            return {}
