"""The one door to texts: from names of data to sequences of tokens. Searches, `finetune` and `evaluate` use it.

A name is a file, a folder, a data set on disk or of the hub (`NAME:SPLIT`), or `-` for stdin. The form of a file is
found by its content (reader.py). `read_texts` reads what needs no network; `Texts.sequences` tokenises.
"""

import difflib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from autoprune.data import folders, hub, stdin
from autoprune.data.file import File
from autoprune.data.keeping import is_kept
from autoprune.data.layout import Layout, layout_of
from autoprune.data.reader import content_of
from autoprune.data.sequences import Sequences, sequences_of
from autoprune.data.source import Source, source_of, together
from autoprune.data_names import STDIN, Names, Wanted, names_in, wanted_of
from autoprune.errors import Notice, UserError

NOTHING = -100
"""The label of a position that predicts nothing, as in torch."""
FORMS = (
    "--data takes a file of text, JSON lines, JSON, CSV or Parquet, a folder of these, a data set (a folder, or of the "
    "hub as NAME:SPLIT), or - for stdin"
)


@dataclass(frozen=True)
class Texts:
    """Documents that were read, not yet tokenised.

    Args:
        sources: one for each name.
        weights: shares of the sequences; None where everything is read.
    """

    sources: Sequence[Source]
    weights: Sequence[float] | None = None

    def sequences(self, tokenizer: Any, length: int) -> Sequences:
        """Sequences of `length` tokens.

        Raises:
            UserError: there are chats and no chat template, or two sources hold the same.
        """
        return sequences_of(self.sources, self.weights, tokenizer, length)

    def layout(self, found: Sequences, tokenizer: Any, length: int, answers: bool) -> Layout:
        """The layout of all sequences that `sequences` has found.

        Args:
            found: the sequences.
            tokenizer: as `sequences` was given.
            length: likewise.
            answers: whether it is wanted what the assistant says in chats.

        Raises:
            UserError: that is wanted and cannot be told.
        """
        parts = [layout_of(source, tokenizer, length, answers) for source in self.sources]
        return Layout(
            found.put_together([part.documents for part in parts]),
            found.put_together([part.answers for part in parts]),
        )

    def tokens(self, tokenizer: Any, length: int) -> Tensor:
        """All sequences `[N, length]`, to measure on. What was guessed is told as a warning.

        Raises:
            UserError: as `sequences`, or there is not one.
        """
        found = self.sequences(tokenizer, length)
        for notice in found.notices:
            warnings.warn(notice, Notice, stacklevel=2)
        tokens_NT = found.tokens()
        if not len(tokens_NT):
            called = ", ".join(source.called for source in self.sources)
            raise UserError(f"the text '{called}' is shorter than one sequence of {length} tokens: give a longer one.")
        return tokens_NT


def read_texts(data: Wanted | Names | None) -> Texts:
    """The documents of names of data; of None, the embedded default: the running Python's own documentation.

    Raises:
        UserError: there is nothing of a name, or no text in it, or no such column or split.
    """
    wanted = wanted_of(data)
    if wanted.names is None:
        from autoprune.data.python_docs import held_out_text

        sources = [Source("Python's documentation", texts=[held_out_text()])]
    else:
        sources = [_source(name, wanted) for name in names_in(wanted.names)]
    _check_used("data_column", wanted.column, [source.column for source in sources], wanted)
    _check_used("data_split", wanted.split, [source.split for source in sources], wanted)
    return Texts(sources, list(wanted.names.values()) if isinstance(wanted.names, dict) else None)


def next_tokens(tokens_BT: Tensor) -> Tensor:
    """What each position of a text should predict, along the last dimension; behind the last there is nothing: -100."""
    labels_BT = tokens_BT.roll(-1, -1)
    labels_BT[..., -1] = NOTHING
    return labels_BT


def _source(name: str, wanted: Wanted) -> Source:
    if name == STDIN:
        name = stdin.kept()
    path, _, split = name.rpartition(":")
    if os.path.exists(name):
        path, split = name, ""
    elif not (path and split and os.path.exists(path)):
        return _not_there(name, wanted)
    if os.path.isdir(path):
        return _folder(path, split or wanted.split, wanted.column)
    if split:
        raise UserError(f"'{path}' is a file and has no splits: leave ':{split}'.")
    return source_of(content_of(File(Path(path))), path, wanted.column)


def _folder(name: str, split: str | None, column: str | None) -> Source:
    found = folders.files_of(Path(name), split, folders.TEXTS)
    if not found.files:
        raise UserError(f"'{name}' is a folder without texts: {FORMS}.{folders.held(Path(name))}")
    sources: list[Source] = []
    for file in found.files:
        chosen = column if not sources else sources[0].column
        sources.append(source_of(content_of(File(file)), str(file), chosen))
    return together(sources, name, found.split)


def _not_there(name: str, wanted: Wanted) -> Source:
    """A data set of the hub, or nothing."""
    if hub.may_be(name, wanted.split):
        return hub.read(name, wanted.split, wanted.column)
    if is_kept(name):
        raise UserError(
            f"'{name}' is not there any more: it kept data that were given in Python or through stdin. Give the same "
            "data to a new search, which keeps them again."
        )
    if os.path.islink(name):
        raise UserError(f"'{name}' is a symbolic link that leads nowhere: give the file itself.")
    near: list[str] = []
    parent = Path(os.path.dirname(name) or ".")
    if parent.is_dir():
        near = difflib.get_close_matches(os.path.basename(name), os.listdir(parent), n=1)
    hint = f" Did you mean '{os.path.join(os.path.dirname(name), near[0])}'?" if near else ""
    raise UserError(f"no calibration text at '{name}'.{hint} {FORMS}.")


def _check_used(setting: str, asked: str | None, used: Sequence[str | None], wanted: Wanted) -> None:
    if asked is not None and not any(used):
        what = "columns" if setting == "data_column" else "splits"
        raise UserError(f"{setting}='{asked}' chooses nothing: {wanted.called} has no {what}. Leave it.")
