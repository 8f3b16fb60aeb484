"""A CSV file in the run, `tracking/search.csv`, with a line `step,name,value` for every number."""

import csv
from collections.abc import Mapping
from pathlib import Path

from autoprune.files.writing import open_unlinked
from autoprune.ports.tracker import TrackedRun, Tracker

HEAD = ("step", "name", "value")


class Csv(Tracker):
    """Appends to the file. It needs no package."""

    _file: Path

    def start(self, run: TrackedRun) -> None:
        """Write the head of a new file; end a line that a killed process has left."""
        self._file = run.folder / f"{run.kind}.csv"
        if not self._file.exists():
            self._append([HEAD])
        elif not self._file.read_bytes().endswith(b"\n"):
            with open_unlinked(self._file, "a") as file:
                file.write("\n")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line for every number."""
        self._append([(step, name, repr(float(value))) for name, value in values.items()])

    def _append(self, rows: list[tuple[object, ...]]) -> None:
        with open_unlinked(self._file, "a") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
