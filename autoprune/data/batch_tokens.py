"""Batches of tokens, written to a file of safetensors.

A batch is a mapping with `input_ids` and perhaps an `attention_mask`, integers `[B, T]` or `[T]`, rows of unequal
length, or a tuple that begins with one of these. Positions that the mask leaves out are no tokens. Labels are not read:
a language model predicts its own tokens.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune import usercode
from autoprune.data.batch_arrays import array_of, bounded, is_array, other_kind
from autoprune.data.keeping import keep
from autoprune.errors import UserError


def keep_tokens(stream: Iterable[Any], length: int | None) -> tuple[str, str | None]:
    """The file of tokens, and a sentence where not all were read.

    Args:
        stream: batches.
        length: tokens of a sequence where the stream may be endless; None reads all.

    Raises:
        UserError: a batch is of another kind, or holds what is no token.
    """
    from safetensors.numpy import save

    found, notice = bounded(_rows(stream), length, len, 1, "tokens")
    if not found:
        raise UserError("the batches that were given hold no token.")
    ids = np.concatenate(found)
    if ids.min() < 0:
        raise UserError(f"the batches hold the token {int(ids.min())}: give an attention_mask that leaves padding out.")
    lengths = np.array([len(row) for row in found], dtype=np.int64)
    return keep(save({"input_ids": ids.astype(np.int64), "lengths": lengths}), ".safetensors"), notice


def tokens_in(batch: Any) -> list[NDArray[Any]] | None:
    """The rows of tokens of a batch or of an example, without padding; None of what has none.

    Raises:
        UserError: the `input_ids` are no whole numbers of one or two axes, or the attention mask has another shape.
    """
    mask = None
    if isinstance(batch, Mapping):
        batch, mask = batch.get("input_ids"), batch.get("attention_mask")
        if _as_rows(batch) is None and (is_array(batch) or batch):
            raise UserError(f"input_ids are whole numbers of the shape [B, T] or [T] (got {usercode.shown(batch)}).")
    elif isinstance(batch, tuple) or (isinstance(batch, list) and batch and is_array(batch[0])):
        batch = batch[0] if batch else None
    rows = _as_rows(batch)
    if rows is None or mask is None:
        return rows
    masks = _as_rows(mask)
    if masks is None or [len(row) for row in masks] != [len(row) for row in rows]:
        raise UserError("input_ids and attention_mask of a batch have several shapes: one is needed.")
    return [row[kept != 0] for row, kept in zip(rows, masks, strict=True)]


def _rows(stream: Iterable[Any]) -> Iterator[NDArray[Any]]:
    for batch in stream:
        rows = tokens_in(batch)
        if rows is None:
            raise UserError(other_kind(batch, "tokens"))
        yield from (row for row in rows if len(row))


def _as_rows(value: Any) -> list[NDArray[Any]] | None:
    if isinstance(value, list) and value and (isinstance(value[0], list) or is_array(value[0])):
        rows = [array_of(row) for row in value]
    elif is_array(value) or (isinstance(value, list) and value and all(isinstance(one, int) for one in value)):
        found = array_of(value)
        rows = list(np.atleast_2d(found)) if found.ndim in (1, 2) else []
    else:
        return None
    whole = all(row.ndim == 1 and (np.issubdtype(row.dtype, np.integer) or not len(row)) for row in rows)
    return rows if rows and whole else None
