"""Batches and records of live data, written to files: JSON lines, safetensors of tokens, `.npz` of images.

The kind is found by the first batch: texts; records (mappings of texts, numbers and chats); tokens (`input_ids`, or an
integer tensor `[B, T]` or `[T]`); images with labels (`pixel_values` or `image` and `labels`, or a pair).
Positions that the attention mask leaves out are no tokens. Labels of texts are not read: a language model predicts its
own tokens. Images of integers are kept as uint8; floats go to the network as they are.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.data.keeping import keep
from autoprune.errors import UserError

ENOUGH = 1024
"""Sequences, or samples of images, of what may be endless: four times as many as the splits take by default."""
CHARACTERS = 8  # of a token, at the most: so many are read of texts
KEYS_OF_IMAGES, KEYS_OF_LABELS = ("pixel_values", "image", "images", "img"), ("labels", "label")


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
    if _tokens_in(first) is not None:
        return _keep_tokens(stream, length)
    if _images_in(first) is not None:
        return _keep_images(stream, length)
    rows, notice = _bounded(
        (row for one in stream for row in _rows(one)), length, _characters, CHARACTERS, "characters"
    )
    return keep_rows(rows), notice


def plain_rows(dataset: Any) -> Any:
    """The records of a data set of `datasets` as Python's own values; pictures as arrays with their labels."""
    features = getattr(dataset, "features", None) or {}
    if any(type(feature).__name__ == "Image" for feature in features.values()):
        return dataset.with_format("numpy") if hasattr(dataset, "with_format") else dataset
    return dataset.with_format(None) if hasattr(dataset, "with_format") else dataset


def is_array(value: Any) -> bool:
    """Whether it is a tensor of torch or an array of NumPy."""
    return isinstance(value, np.ndarray) or (
        type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "numpy")
    )


def _keep_tokens(stream: Iterable[Any], length: int | None) -> tuple[str, str | None]:
    from safetensors.numpy import save

    found, notice = _bounded((row for one in stream for row in _rows_of_tokens(one)), length, len, 1, "tokens")
    if not found:
        raise UserError("the batches that were given hold no token.")
    ids = np.concatenate(found)
    if ids.min() < 0:
        raise UserError(f"the batches hold the token {int(ids.min())}: give an attention_mask that leaves padding out.")
    lengths = np.array([len(row) for row in found], dtype=np.int64)
    return keep(save({"input_ids": ids.astype(np.int64), "lengths": lengths}), ".safetensors"), notice


def _keep_images(stream: Iterable[Any], samples: int | None) -> tuple[str, str | None]:
    def pairs() -> Iterator[tuple[NDArray[Any], int]]:
        for one in stream:
            both = _images_in(one)
            if both is None:
                raise UserError(_other_kind(one, "images with labels"))
            yield from zip(*both, strict=True)

    found, notice = _bounded(pairs(), samples, lambda pair: 1, 1, "images")
    pictures, labels = [picture for picture, _ in found], np.array([label for _, label in found], dtype=np.int64)
    if len({picture.shape for picture in pictures}) > 1:
        raise UserError(f"the images have several shapes, as {pictures[0].shape}: images of one size are needed.")
    out, images = io.BytesIO(), _pixels(np.stack(pictures))
    if images.dtype == np.uint8:
        np.savez(out, images=images, labels=labels)
    else:
        np.savez(out, pixels=images, labels=labels)
    return keep(out.getvalue(), ".npz"), notice


def _bounded(items: Iterable[Any], length: int | None, size: Any, each: int, unit: str) -> tuple[list[Any], str | None]:
    """Items until there is enough, and a sentence where more were there.

    Args:
        length: items of a sample; None is all.
        size: of an item, in units.
        each: units of an item of a sample.
    """
    found, total, items = [], 0, iter(items)
    most = None if length is None else ENOUGH * length * each
    for item in items:
        found.append(item)
        total += size(item)
        if most is not None and total >= most:
            more = next(iter(islice(items, 1)), None) is not None
            told = (
                f"the data have no length and may be endless: the first {total:,} {unit} are read, enough for "
                f"{ENOUGH:,} samples."
            )
            return found, told if more else None
    return found, None


def _tokens_in(batch: Any) -> tuple[NDArray[Any], NDArray[Any] | None] | None:
    """Token numbers and the mask of a batch, or of a record; None of what has none."""
    mask = None
    if isinstance(batch, Mapping):
        if "input_ids" not in batch:
            return None
        batch, mask = batch["input_ids"], batch.get("attention_mask")
    elif isinstance(batch, (list, tuple)) and batch and is_array(batch[0]) and _images_in(batch) is None:
        batch = batch[0]  # of a TensorDataset
    elif isinstance(batch, (list, tuple)) and batch and all(isinstance(one, int) for one in batch):
        pass
    elif not is_array(batch):
        return None
    try:
        ids = _array(batch)
    except ValueError:
        return None
    fits = np.issubdtype(ids.dtype, np.integer) and ids.ndim in (1, 2)
    return (np.atleast_2d(ids), None if mask is None else np.atleast_2d(_array(mask))) if fits else None


def _rows_of_tokens(batch: Any) -> Iterator[NDArray[Any]]:
    if (
        isinstance(batch, Mapping)
        and isinstance(ragged := batch.get("input_ids"), list)
        and ragged
        and isinstance(ragged[0], list)
    ):
        masks = batch.get("attention_mask") or [None] * len(ragged)
        for ids, mask in zip(ragged, masks, strict=True):
            yield from _rows_of_tokens({"input_ids": ids} | ({} if mask is None else {"attention_mask": mask}))
        return
    found = _tokens_in(batch)
    if found is None:
        raise UserError(_other_kind(batch, "tokens"))
    ids_BT, mask_BT = found
    if mask_BT is not None and mask_BT.shape != ids_BT.shape:
        raise UserError(f"input_ids are {ids_BT.shape} and attention_mask is {mask_BT.shape}: one shape is needed.")
    for i, row in enumerate(ids_BT):
        kept = row if mask_BT is None else row[mask_BT[i] != 0]
        if len(kept):
            yield kept


def _images_in(batch: Any) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Images `[B, height, width, C]` and labels `[B]` of a batch, or of one example; None of what has none."""
    if isinstance(batch, Mapping):
        keys = [next((key for key in known if key in batch), None) for known in (KEYS_OF_IMAGES, KEYS_OF_LABELS)]
        pair = [batch[key] for key in keys if key is not None]
    else:
        pair = list(batch) if isinstance(batch, (list, tuple)) else []
    if len(pair) != 2 or not (is_array(pair[0]) or hasattr(pair[0], "getbands")):
        return None
    images, labels = np.asarray(pair[0]) if hasattr(pair[0], "getbands") else _array(pair[0]), _array(pair[1])
    if images.ndim in (2, 3) and labels.ndim == 0:
        images, labels = images[None], labels[None]
    if images.ndim == 3:
        images = images[:, None] if is_torch(pair[0]) else images[..., None]
    if images.ndim != 4 or labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        return None
    first = images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3)
    return (images.transpose(0, 2, 3, 1) if first or is_torch(pair[0]) else images), labels


def is_torch(value: Any) -> bool:
    """Whether it is a tensor of torch, whose images have channels first."""
    return type(value).__module__.partition(".")[0] == "torch"


def _pixels(images: NDArray[Any]) -> NDArray[Any]:
    if np.issubdtype(images.dtype, np.integer):
        if images.min() < 0 or images.max() > 255:
            raise UserError(f"the images hold integers from {images.min()} to {images.max()}: 0 to 255 are needed.")
        return images.astype(np.uint8)
    return images.astype(np.float32)


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
        raise UserError(_other_kind(batch, "texts, records, tokens (input_ids) or images with labels"))


def _characters(row: Mapping[str, Any]) -> int:
    return sum(len(value) if isinstance(value, str) else 0 for value in row.values()) or len(str(row))


def _array(value: Any) -> NDArray[Any]:
    if is_torch(value):
        value = value.detach().cpu()
        return np.asarray(value.float().numpy() if value.is_floating_point() else value.numpy())
    return np.asarray(value)


def _as_python(value: Any) -> Any:
    """A value of NumPy or torch, for JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"it holds a {type(value).__name__}")


def _other_kind(batch: Any, wanted: str) -> str:
    if isinstance(batch, Mapping):
        shown = f"a mapping of {', '.join(map(str, list(batch)[:6]))}"
    elif is_array(batch):
        shown = f"an array {list(batch.shape)} of {batch.dtype}"
    elif isinstance(batch, Sequence) and not isinstance(batch, (str, bytes)):
        shown = (
            f"a {type(batch).__name__} of {', '.join(sorted({type(one).__name__ for one in batch[:6]})) or 'nothing'}"
        )
    else:
        shown = f"a {type(batch).__name__}"
    return f"the data give {shown}, and {wanted} are needed."
