"""The level store of a worker where a search uses only some levels of each unit (undominated.py).

`levels.json` of a bundle has all levels of the store, and those that the search uses. It is missing where it uses all.

    {"levels": [[level, ...] of each unit], "chosen": [[number, ...] of each unit]}
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoprune.files.reading import explained, read_json
from autoprune.level import Level
from autoprune.levels.store import LevelStore
from autoprune.space import Unit

FILE = "levels.json"


def save_chosen(directory: Path, store: LevelStore) -> None:
    """Write which levels of a store a search uses, if it does not use all."""
    if store.chosen is not None:
        levels = [[level.to_json() for level in unit.levels] for unit in store.units]
        (directory / FILE).write_text(json.dumps({"levels": levels, "chosen": store.chosen}))


def open_store(directory: Path, units: Sequence[Unit], device: str) -> LevelStore:
    """The store of a bundle, with the levels that the search uses.

    Args:
        directory: of the bundle.
        units: of the search.
        device: where its tensors are wanted.

    Raises:
        UserError: the store or the file is damaged.
    """
    if not (directory / FILE).is_file():
        return LevelStore(directory / "levels", units, device)
    with explained("the bundle", directory, "delete that folder"):
        record = read_json(directory / FILE)
        rows = [
            tuple(Level.from_json(level, unit.groups) for level in levels)
            for unit, levels in zip(units, record["levels"], strict=True)
        ]
    every = [replace(unit, levels=levels) for unit, levels in zip(units, rows, strict=True)]
    return LevelStore(directory / "levels", every, device).choosing(record["chosen"])
