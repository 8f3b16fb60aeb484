"""Batches and records of live data, written to files by their kind: texts and records, tokens, or images with labels.

The kind is that of the first batch. Texts and records (mappings of texts, numbers and chats) become JSON lines.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from autoprune.data.batch_arrays import bounded, other_kind
from autoprune.data.batch_images import images_in, keep_images
from autoprune.data.batch_tokens import keep_tokens, tokens_in
from autoprune.data.keeping import keep
from autoprune.errors import UserError

CHARACTERS = 8  # of a token, at the most: so many are read of texts


def keep_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """The file of records as JSON lines.

    Raises:
        UserError: a record is not of texts, numbers, lists and mappings.
    """
    lines = []
    for number, row in enumerate(rows, 1):
        try:
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False, default=_as_python).encode("utf-8"))
        except (TypeError, ValueError) as error:
            raise UserError(f"record {number} of the data cannot be kept: {error}.") from error
    return keep(b"\n".join(lines) + b"\n", ".jsonl")


def keep_batches(stream: Iterable[Any], first: Any, length: int | None) -> tuple[str, str | None]:
    """The file of batches or records, and a sentence where not all were read.

    Args:
        stream: all of them.
        first: the first of them.
        length: tokens of a sequence or images of a sample where the stream may be endless; None reads all.

    Raises:
        UserError: they are of no kind that is known, or of several.
    """
    if images_in(first) is not None:
        return keep_images(stream, length)
    if tokens_in(first) is not None:
        return keep_tokens(stream, length)
    rows, notice = bounded((row for one in stream for row in _rows(one)), length, _characters, CHARACTERS, "characters")
    return keep_rows(rows), notice


def plain_rows(dataset: Any) -> Any:
    """The records of a data set of `datasets` as Python's own values; pictures as arrays with their labels."""
    features = getattr(dataset, "features", None) or {}
    if any(type(feature).__name__ == "Image" for feature in features.values()):
        return dataset.with_format("numpy") if hasattr(dataset, "with_format") else dataset
    return dataset.with_format(None) if hasattr(dataset, "with_format") else dataset


def _rows(batch: Any) -> Iterator[Mapping[str, Any]]:
    """Records of a batch of texts: a text, a record, a list of these, or a mapping of lists."""
    if isinstance(batch, str):
        yield {"text": batch}
    elif isinstance(batch, Mapping):
        columns = list(batch.values())
        lists = all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) == 1
        if columns and lists and any(isinstance(one, str) for column in columns for one in column[:1]):
            yield from (dict(zip(batch, values, strict=True)) for values in zip(*columns, strict=True))
        else:
            yield batch
    elif isinstance(batch, (list, tuple)) and batch and all(isinstance(one, str) for one in batch):
        yield from ({"text": text} for text in batch)
    elif isinstance(batch, (list, tuple)) and batch and all(isinstance(one, Mapping) for one in batch):
        if all({"role", "content"} <= one.keys() or {"from", "value"} <= one.keys() for one in batch):
            yield {"messages": list(batch)}
        else:
            yield from batch
    else:
        raise UserError(other_kind(batch, "texts, records, tokens (input_ids) or images with labels"))


def _characters(row: Mapping[str, Any]) -> int:
    return sum(len(value) if isinstance(value, str) else 0 for value in row.values()) or len(str(row))


def _as_python(value: Any) -> Any:
    """A value of NumPy or torch, for JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"it holds a {type(value).__name__}")
