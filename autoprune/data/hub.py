"""Data sets of the Hugging Face hub, with `datasets`: `NAME:SPLIT`, `OWNER/NAME:SPLIT` or `OWNER/NAME/CONFIG:SPLIT`.

Whether the hub can be reached is asked first and for a few seconds at most, because `datasets` tries for half a minute.
"""

import re
import threading
from typing import Any

from autoprune.data.records import SAMPLES, Records
from autoprune.data.source import Source, source_of
from autoprune.errors import UserError
from autoprune.files.reading import reason

NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*){0,2}")
FILES = re.compile(r"\.(txt|text|md|rst|jsonl|ndjson|json|csv|tsv|parquet|arrow|safetensors|gz|npz)$", re.IGNORECASE)
SECONDS = 5


def may_be(name: str, split: str | None) -> bool:
    """Whether a name that is no file may be a data set of the hub: it has its form, and a split is named."""
    repository, _, own = name.partition(":")
    return bool((own or split) and NAME.fullmatch(repository)) and not FILES.search(repository)


def read(name: str, split: str | None, column: str | None) -> Source:
    """The documents of a split.

    Raises:
        UserError: `datasets` is not installed, the hub cannot be reached, or there is no such data set or split.
    """
    repository, _, own = name.partition(":")
    asked = own or str(split)
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"there is no file '{name}', and data sets of the hub need the package datasets: "
            "pip install 'autoprune[data]'."
        ) from error
    if int(datasets.__version__.partition(".")[0]) < 4:
        raise UserError(
            f"datasets {datasets.__version__} may run code that comes with a data set, and autoprune runs none: "
            "pip install 'datasets>=4'."
        )
    owner, _, config = repository.rpartition("/") if repository.count("/") == 2 else (repository, "", "")
    _check_reachable(owner, name)
    try:
        datasets.disable_progress_bars()
        found = datasets.load_dataset(owner, config or None, split=asked)
    except Exception as error:  # of a dozen classes, of three libraries
        raise UserError(f"the data set '{name}' of the hub cannot be read: {reason(error)}.") from error
    source = source_of(records_of_dataset(found, f"split {asked}"), name, column)
    return Source(name, source.texts, source.chats, column=source.column, split=asked, notices=source.notices)


def records_of_dataset(found: Any, form: str) -> Records:
    """Records of a `datasets.Dataset`."""
    some = found.select(range(min(SAMPLES, len(found))))
    samples = {
        name: [value for value in some.with_format(None).select_columns([name])[name] if value not in (None, [])]
        for name in found.column_names
        if type(found.features[name]).__name__ not in ("Image", "Audio", "Video")
    }
    return Records(
        form, samples, lambda column: (row[column] for row in found.with_format(None).select_columns([column]))
    )


def _check_reachable(repository: str, name: str) -> None:
    """Ask the hub for the data set, in a thread: even looking up its address may take half a minute."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:  # what was downloaded before is in the cache of `datasets`, or it tells at once
        return
    failed: list[str] = [f"it does not answer within {SECONDS} seconds"]

    def ask() -> None:
        try:
            HfApi().dataset_info(repository, timeout=SECONDS)
            failed.clear()
        except Exception as error:
            failed[:] = [reason(error)]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    if failed:
        raise UserError(
            f"there is no file '{name}', and the data set of that name cannot be read from the hub ({failed[0]}): give "
            "a file, or a folder that Dataset.save_to_disk wrote."
        )
