"""Calibration text: from a file to fixed-length token sequences."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoprune.data.plain_text import plain_text
from autoprune.errors import UserError
from autoprune.files.reading import read_bytes

BYTES = 2**33  # of a file, at most
NOTHING = -100
"""The label of a position that predicts nothing, as in torch."""


def read_text(path: str | None) -> str:
    """The text of a file, or the embedded default: the running Python's own documentation.

    Raises:
        UserError: no such file, not text, records of texts and no text itself, or empty.
    """
    if path is None:
        from autoprune.data.python_docs import held_out_text

        return held_out_text()
    file = Path(path)
    if file.is_dir():
        raise UserError(f"'{path}' is a folder: --data takes a text file (UTF-8) for a language model.")
    if not file.is_file():
        raise UserError(f"no calibration text at '{path}': --data takes a text file (UTF-8).")
    try:
        text = plain_text(read_bytes(file, BYTES), path)
    except ValueError as error:
        raise UserError(f"the calibration text '{path}' cannot be read: {error}.") from error
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
