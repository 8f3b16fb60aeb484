"""Files of a folder that hold data: a data set on disk, or a plain folder of files, and which split of it.

Two layouts of data sets: what `Dataset.save_to_disk` writes (`state.json`, `*.arrow`; of a `DatasetDict` one such
folder for each split), and files of one form in the folder or below it, as the hub has them
(`data/train-00000-of-00001.parquet`). A split is a word in a file's path. Of several it is `train` unless one is asked.

Source of the layouts: the documentation of `datasets` 4, "Load" and "Structure your repository".
"""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprune.errors import UserError
from autoprune.files.reading import explained, read_json

SPLITS = {"train", "test", "validation", "valid", "val", "dev", "eval"}
"""Words that name a split in a file's path."""
Suffixes = Sequence[tuple[str, ...]]
IMAGES: Suffixes = ((".parquet",),)
TEXTS: Suffixes = (
    (".parquet",), (".arrow",), (".jsonl", ".ndjson"), (".json",), (".csv",), (".tsv",), (".safetensors",),
    (".txt", ".text"), (".md", ".rst"),
)  # fmt: skip
"""Forms of files by their names. Files of the last two are read only where there are none of the others."""
PROSE = 2
NO_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
SHOWN = 5


@dataclass(frozen=True)
class Found:
    """Files of one split, in order; the name of the split where there is one."""

    files: list[Path]
    split: str | None = None


def files_of(path: Path, split: str | None = None, suffixes: Suffixes = IMAGES) -> Found:
    """The files of one split of a folder; none where it holds no data of these forms.

    Args:
        path: the folder.
        split: the one that is asked for; None is `train`, or the only one.
        suffixes: the forms of files.

    Raises:
        UserError: there is no such split, or none is asked for and there are several without `train`; the files lie in
            several folders or are of several forms; or `state.json` is damaged.
    """
    saved = [folder for folder in (path, *sorted(path.iterdir())) if (folder / "state.json").is_file()]
    if saved == [path]:
        if split is not None:
            raise UserError(f"the data set in '{path}' is one split: leave '{split}'.")
        return Found(_arrow_files(path))
    if saved:
        name = _one_split([folder.name for folder in saved], path, split)
        return Found(_arrow_files(next(folder for folder in saved if folder.name == name)), name)
    splits: dict[str, list[Path]] = {}
    for file in _of_one_form(path, suffixes):
        words = re.split("[^a-z]+", str(file.relative_to(path).with_suffix("")).lower())
        splits.setdefault(next((word for word in words if word in SPLITS), "all"), []).append(file)
    if not splits:
        return Found([])
    name = _one_split(list(splits), path, split)
    folders = sorted({str(file.parent.relative_to(path)) for file in splits[name]})
    if len(folders) > 1:
        raise UserError(f"'{path}' holds data sets in {', '.join(folders)}: give the folder of one with --data.")
    return Found(splits[name], None if name == "all" else name)


def held(path: Path) -> str:
    """A sentence on what a folder holds."""
    names = sorted(entry.name for entry in path.iterdir())
    return f" It holds {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}." if names else " It is empty."


def _of_one_form(path: Path, suffixes: Suffixes) -> list[Path]:
    """Files of the first form that there is, in the folder, or up to two folders below it."""
    found = (
        file
        for depth in ("", "*/", "*/*/")
        for file in path.glob(f"{depth}*")
        if file.name not in NO_DATA and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    once: dict[tuple[str, str], Path] = {}  # a link may lead back to a folder that has been looked into
    for file in found:
        once.setdefault((os.path.realpath(file.parent), file.name), file)
    every = list(once.values())
    groups = [
        sorted(file for file in every if file.name.lower().removesuffix(".gz").endswith(form)) for form in suffixes
    ]
    groups = [[file for file in group if file.is_file()] for group in groups]
    records = (
        [group for group in groups[: -PROSE or None] if group] if len(groups) > PROSE else [g for g in groups if g]
    )
    if len(records) > 1:
        kinds = ", ".join(f"*{group[0].suffix}" for group in records)
        raise UserError(f"'{path}' holds files of several forms ({kinds}): give one of them, or a folder of one form.")
    return next((group for group in [*records, *groups] if group), [])


def _one_split(splits: Sequence[str], path: Path, asked: str | None) -> str:
    """The one that is asked for, or `train`, or the only one."""
    if asked is not None:
        if asked not in splits:
            known = [name for name in splits if name != "all"]
            near = difflib.get_close_matches(asked, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            has = f"it has {', '.join(known)}" if known else "it has no splits: leave it"
            raise UserError(f"the data set in '{path}' has no split '{asked}'.{hint} ({has[0].upper()}{has[1:]}.)")
        return asked
    if "train" not in splits and len(splits) > 1:
        raise UserError(
            f"the data set in '{path}' has the splits {', '.join(splits)} and no train: choose one with "
            "data_split=NAME, or give the folder or the file of one with --data."
        )
    return "train" if "train" in splits else splits[0]


def _arrow_files(folder: Path) -> list[Path]:
    state = folder / "state.json"
    with explained("the state of the data set", state, "Dataset.save_to_disk writes another"):
        names = [str(entry["filename"]) for entry in read_json(state)["_data_files"]]
    for name in names:
        if Path(name).name != name:
            raise UserError(f"'{state}' names '{name}', which is no file beside it.")
    return [folder / name for name in names]
