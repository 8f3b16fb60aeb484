"""Calibration text: from a file to fixed-length token sequences in three splits that never mix.

`reconstruction` gives the moments, `search` the losses that agents see, `validation` what is reported.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.calibration.plain_text import plain_text
from autoprune.errors import UserError

NOTHING = -100
"""The label of a position that predicts nothing, as in torch."""
SHARES = {"reconstruction": 0.5, "search": 0.25, "validation": 0.25}
MOST = {"reconstruction": 128, "search": 64, "validation": 64}
"""Sequences of a split for which no number is asked."""
LEAST = 2


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
        UserError: no such file, not text, records of texts and no text itself, or empty.
    """
    if path is None:
        from autoprune.calibration.python_docs import held_out_text

        return held_out_text()
    file = Path(path)
    if file.is_dir():
        raise UserError(f"'{path}' is a folder: --data takes a text file (UTF-8) for a language model.")
    if not file.is_file():
        raise UserError(f"no calibration text at '{path}': --data takes a text file (UTF-8).")
    try:
        text = plain_text(file.read_bytes(), path)
    except OSError as error:
        raise UserError(f"the calibration text '{path}' cannot be read ({error.strerror}).") from error
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


def split(tokens_NT: Tensor, asked: Mapping[str, int | None], seed: int = 0) -> Splits:
    """Shuffle sequences by `seed` and deal them to the three splits, as many to each as `dealt` says.

    Raises:
        UserError: too few sequences for each split to get two.
    """
    count, length = tokens_NT.shape
    takes = dealt(count, asked)
    if min(takes.values()) < LEAST:
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


def dealt(count: int, asked: Mapping[str, int | None]) -> dict[str, int]:
    """How many of `count` sequences each split gets.

    The numbers that are asked for are kept where two are left for each of the others, which share what is left as
    `SHARES` has it, up to `MOST`. Where they cannot be kept, no split gets more than its share of all sequences.
    """
    fixed = {name: number for name, number in asked.items() if number is not None}
    others = [name for name in SHARES if name not in fixed]
    left, shares = count - sum(fixed.values()), sum(SHARES[name] for name in others)
    least = LEAST if fixed else 0
    takes = fixed | {name: max(least, min(MOST[name], int(left * SHARES[name] / shares))) for name in others}
    if sum(takes.values()) > count:
        takes = {name: min(fixed.get(name, MOST[name]), int(count * share)) for name, share in SHARES.items()}
    return {name: takes[name] for name in SHARES}
