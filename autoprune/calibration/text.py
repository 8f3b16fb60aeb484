"""Calibration text: from a file to fixed-length token sequences in three splits that never mix.

`reconstruction` gives the moments, `search` the losses that agents see, `validation` what is reported.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import UserError

NOTHING = -100
"""The label of a position that predicts nothing, as in torch."""
SHARES = {"reconstruction": 0.5, "search": 0.25, "validation": 0.25}


@dataclass(frozen=True)
class Splits:
    """Token sequences `[N, T]` by split, and a hash of all of them."""

    reconstruction: Tensor
    search: Tensor
    validation: Tensor
    digest: str


def read_text(path: str | None) -> str:
    """The text of a file, or the embedded default: the running Python's own documentation.

    Raises:
        UserError: no such file, not text, or empty.
    """
    if path is None:
        from autoprune.calibration.python_docs import held_out_text

        return held_out_text()
    file = Path(path)
    if not file.is_file():
        raise UserError(f"no calibration text at '{path}': --data takes a text file (UTF-8).")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is no UTF-8 text ({error.reason} at byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"the calibration text '{path}' cannot be read ({error.strerror}).") from error
    if "\0" in text:
        raise UserError(f"'{path}' is no text: it holds a zero byte at character {text.index(chr(0))}.")
    if not text.strip():
        raise UserError(f"the calibration text '{path}' is empty.")
    return text


def sequences(text: str, tokenizer: Any, length: int) -> Tensor:
    """The text as sequences of `length` tokens, `[N, length]`, each opened as the tokenizer opens a text."""
    opening = [t for t in tokenizer("").input_ids if t == tokenizer.bos_token_id][:1]
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    body = length - len(opening)
    count = len(ids) // body
    tokens_NT = torch.tensor(ids[: count * body], dtype=torch.long).view(count, body)
    return torch.cat([torch.tensor(opening, dtype=torch.long).expand(count, len(opening)), tokens_NT], dim=1)


def next_tokens(tokens_BT: Tensor) -> Tensor:
    """What each position of a text should predict, along the last dimension; behind the last there is nothing: -100."""
    labels_BT = tokens_BT.roll(-1, -1)
    labels_BT[..., -1] = NOTHING
    return labels_BT


def split(tokens_NT: Tensor, limits: dict[str, int], seed: int = 0) -> Splits:
    """Shuffle sequences by `seed` and deal them to the three splits, at most `limits[split]` to each.

    Raises:
        UserError: too few sequences for each split to get two.
    """
    count, length = tokens_NT.shape
    takes = {name: min(limits[name], int(count * share)) for name, share in SHARES.items()}
    if min(takes.values()) < 2:
        raise UserError(
            f"the calibration text is too short: {count} sequences of {length} tokens, and at least 8 are needed. "
            "Give a longer text with --data, or shorter sequences with sequence_length=..."
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    parts, start = {}, 0
    for name, take in takes.items():
        parts[name] = tokens_NT[order[start : start + take]]
        start += take
    sha = hashlib.sha256(b"".join(name.encode() + part.numpy().tobytes() for name, part in parts.items()))
    return Splits(**parts, digest=sha.hexdigest()[:16])
