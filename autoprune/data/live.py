"""Data as Python has them: texts, records, data sets, loaders and other iterables of batches, arrays.

They are written once to a file in the cache that is named by its content (keeping.py): texts and records as JSON lines,
tokens as safetensors, images as `.npz`. Settings name that file, so that resuming, workers and fine-tuning read it as
any other. What has a length is read to its end. What has none may be endless, and is read until there is enough.

Shapes: B examples of a batch, T tokens.
"""

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from autoprune import usercode
from autoprune.arguments import NOT_GIVEN
from autoprune.data import batch_arrays, batches
from autoprune.data_names import STDIN, Names, Wanted, names_of
from autoprune.errors import UserError

LONGEST_NAME = 255  # characters; as file systems have it
FILE = re.compile(r"\S+\.(txt|text|md|rst|jsonl|ndjson|json|csv|tsv|parquet|arrow|safetensors|gz|npz)(=\S+)?")
HUB = re.compile(r"\w[\w.-]*(/\w[\w.-]*){0,2}:[\w.-]+(\[\S*\])?(=\S+)?")
TAKES = (
    "data takes a name (of a file, a folder, a data set), a text, a list of texts or of records, a datasets.Dataset, a "
    "DataLoader or any iterable of batches (input_ids, or images with labels)"
)


def named(data: Any, length: int | None = None) -> Any:
    """Names for data: those that are given, or that of the file in the cache to which live data are written.

    A text is a name unless it holds a line break or more than 255 characters and no file is called so. Of a list of
    texts all are names if one of them names a file or looks as if it did.

    Args:
        data: in any form.
        length: tokens of a sequence, or images of a sample, which decides how much is enough; None is 512.

    Raises:
        UserError: of no form that can be read, empty, or of several kinds.
    """
    if isinstance(data, os.PathLike):
        return os.fspath(data)
    if data is None or data is NOT_GIVEN:
        return data
    if isinstance(data, str):
        return batches.keep_rows([{"text": data}]) if _is_text(data) else data
    if isinstance(data, (list, tuple)) and data and all(isinstance(one, (str, os.PathLike)) for one in data):
        texts = [os.fspath(one) for one in data]
        if any(isinstance(one, os.PathLike) or _looks_like_a_name(one) for one in data):
            return names_of(texts)
        return batches.keep_rows([{"text": text} for text in texts])
    if isinstance(data, Mapping) and data and all(_is_number(weight) for weight in data.values()):
        return names_of(data)
    return _written(data, length or 512)


def evaluated_on(data: Any, length: int | None, column: str | None, split: str | None) -> Wanted | str | None:
    """What a network is measured on: None for its default, a name alone as it is.

    Raises:
        UserError: as `named`, or a column or a split is given and no data.
    """
    names = names_of(named(data, length))
    if names is None and (column or split):
        raise UserError("data_column and data_split choose within data: give data too.")
    if names is None or (isinstance(names, str) and not (column or split)):
        return names
    return Wanted(names, column, split)


def _written(data: Any, length: int) -> Names:
    """The file of the content of what is no name."""
    if _is_of(data, "datasets") and isinstance(data, Mapping):  # a DatasetDict
        data = _one_split(data)
    if _is_of(data, "datasets"):
        data = batches.plain_rows(data)
    if isinstance(data, Mapping) or batch_arrays.is_array(data):
        data = [data]  # one batch
    if isinstance(data, (str, bytes, int, float)) or (
        not isinstance(data, Iterable) and not hasattr(data, "__getitem__")
    ):
        raise UserError(f"{TAKES} (got {_shown(data)}).")
    count = _length_of(data)
    stream = islice(_items(data), count)
    first = next(stream, None)
    if first is None:
        raise UserError(
            f"the data that were given hold nothing ({_shown(data)}). An iterator is used up when it has been read."
        )
    name, notice = batches.keep_batches(chain([first], stream), first, length if count is None else None)
    if notice:
        warnings.warn(notice, UserWarning, stacklevel=5)
    return name


def _length_of(data: Any) -> int | None:
    """How many batches or records there are; None where nothing says so."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):  # also a DataLoader of an iterable
        return None
    except Exception as error:
        raise _of_its_code(data, error) from error


def _items(data: Any) -> Iterator[Any]:
    """What is in the data; an error of the user's code that gives it is a UserError."""
    try:
        yield from data
    except UserError:
        raise
    except Exception as error:
        raise _of_its_code(data, error) from error


def _of_its_code(data: Any, error: Exception) -> UserError:
    return UserError(f"the data that were given ({type(data).__name__}) raised {usercode.told(error)}.")


def _is_text(text: str) -> bool:
    return ("\n" in text or len(text) > LONGEST_NAME) and not os.path.exists(text)


def _looks_like_a_name(text: str | Any) -> bool:
    if not isinstance(text, str) or _is_text(text):
        return False
    head = text.rpartition("=")[0] or text
    exists = os.path.exists(text) or os.path.exists(head)
    return bool(exists or text == STDIN or FILE.fullmatch(text) or HUB.fullmatch(text))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_of(data: Any, package: str) -> bool:
    return type(data).__module__.partition(".")[0] == package


def _one_split(splits: Mapping[str, Any]) -> Any:
    """Of a DatasetDict."""
    if "train" in splits or len(splits) == 1:
        return splits["train"] if "train" in splits else next(iter(splits.values()))
    raise UserError(f"the data set has the splits {', '.join(splits)} and no train: give one, as data=DATA['NAME'].")


def _shown(data: Any) -> str:
    return f"{type(data).__name__}: {data!r:.60}" if isinstance(data, (str, bytes, int, float)) else type(data).__name__
