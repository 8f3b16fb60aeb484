"""Texts as sequences of tokens of one length.

Documents of a source (records, files of a folder) are joined, with the tokenizer's eos token between two of them; where
it has none, an empty line. A document that ends with that token gets no second one. The stream of tokens is cut into
sequences, each opened as the tokenizer opens a text (with bos, for most); a rest at the end is left out. One text is
one document. Tokens that are given in rows of exactly the wanted length are the sequences, as they are.

Shapes: N sequences, T tokens.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.data.chats import as_texts, template_digest
from autoprune.data.mixing import interleaved, told_of_mix
from autoprune.data.source import Source
from autoprune.data.splits import Splits, split
from autoprune.errors import UserError

TOGETHER = 1000  # documents that are tokenised at a time


@dataclass(frozen=True)
class Sequences:
    """The sequences of one source or of several.

    Args:
        parts: `[N, T]` of each source.
        weights: shares of the sequences; None where everything is read.
        notices: sentences for the user.
        marks: what decided beside the content, of each source; empty for plain text.
    """

    parts: Sequence[Tensor]
    weights: Sequence[float] | None
    notices: tuple[str, ...]
    marks: Sequence[Mapping[str, Any]]

    def tokens(self) -> Tensor:
        """All of them, `[N, T]`. Of several sources they alternate, so that any piece has the shares of the whole."""
        return self.put_together(self.parts)

    def split(self, asked: Mapping[str, int | None], seed: int) -> Splits:
        """Shuffled by `seed` and dealt to three splits. Each split of several sources has their shares, to a sequence.

        Raises:
            UserError: too few sequences for each split to get two.
        """
        if len(self.parts) == 1:
            splits = split(self.parts[0], asked, seed)
        else:
            rng = np.random.default_rng(seed)
            shuffled = [part[torch.from_numpy(rng.permutation(len(part)))] for part in self.parts]
            splits = split(self.put_together(shuffled), asked, None)
        if any(self.marks):
            described = json.dumps([splits.digest, *self.marks], sort_keys=True)
            splits = replace(splits, digest=hashlib.sha256(described.encode()).hexdigest()[:16])
        return replace(splits, notices=self.notices)

    def put_together(self, parts: Sequence[Tensor]) -> Tensor:
        """What there is of every source, `[N, T]` each, in the order of `tokens`."""
        if len(parts) == 1:
            return parts[0]
        order = interleaved([len(part) for part in parts], self.weights)
        starts = np.cumsum([0, *(len(part) for part in parts)])
        return torch.cat(list(parts))[torch.tensor([starts[which] + i for which, i in order], dtype=torch.long)]


def sequences_of(sources: Sequence[Source], weights: Sequence[float] | None, tokenizer: Any, length: int) -> Sequences:
    """Sequences of `length` tokens of every source.

    Raises:
        UserError: chats without a chat template, or two sources that hold the same.
    """
    parts = [sequences(source, tokenizer, length) for source in sources]
    seen: dict[bytes, str] = {}
    for source, part in zip(sources, parts, strict=True):
        digest = hashlib.sha256(part.numpy().tobytes()).digest()
        if digest in seen and len(part):
            raise UserError(
                f"'{seen[digest]}' and '{source.called}' hold the same: sequences of one split would be in "
                "the others too."
            )
        seen[digest] = source.called
    marks: list[dict[str, Any]] = [source.marks | _template(source, tokenizer) for source in sources]
    if weights is not None:
        marks = [mark | {"weight": weight} for mark, weight in zip(marks, weights, strict=True)]
    notices = [notice for source in sources for notice in source.notices]
    if len(sources) > 1:
        notices += told_of_mix([source.called for source in sources], [len(part) for part in parts], weights)
    return Sequences(parts, weights, tuple(notices), marks)


def sequences(source: Source, tokenizer: Any, length: int) -> Tensor:
    """The sequences `[N, length]` of one source."""
    opening = opening_of(tokenizer)
    if source.tokens and all(len(document) == length for document in source.tokens):
        return torch.stack(list(source.tokens))
    both = itertools.chain.from_iterable(pieces(documents_of(source, tokenizer), opening, tokenizer))
    ids = list(itertools.chain.from_iterable(both))
    body = length - len(opening)
    count = len(ids) // body
    tokens_NT = torch.tensor(ids[: count * body], dtype=torch.long).view(count, body)
    return torch.cat([torch.tensor(opening, dtype=torch.long).expand(count, len(opening)), tokens_NT], dim=1)


def opening_of(tokenizer: Any) -> list[int]:
    """The tokens with which the tokenizer opens a text, at most one."""
    return [t for t in tokenizer("").input_ids if t == tokenizer.bos_token_id][:1]


def documents_of(source: Source, tokenizer: Any) -> Iterator[list[int]]:
    """Token numbers of each document."""
    if source.tokens:
        yield from (document.tolist() for document in source.tokens)
        return
    texts = as_texts(source.chats, tokenizer, source.called) if source.chats else source.texts
    if len(texts) == 1:
        yield tokenizer(texts[0], add_special_tokens=False, verbose=False).input_ids
        return
    for start in range(0, len(texts), TOGETHER):
        some = list(texts[start : start + TOGETHER])
        yield from tokenizer(some, add_special_tokens=False, verbose=False).input_ids


def pieces(documents: Iterable[list[int]], opening: list[int], tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """The stream of tokens, in pairs: what stands before a document, and the document.

    Documents lose the openings that they have already: every sequence gets one.
    """
    eos, opens = tokenizer.eos_token_id, opening and opening[0] != tokenizer.eos_token_id
    between = [eos] if eos is not None else tokenizer("\n\n", add_special_tokens=False).input_ids
    before: list[int] | None = None
    for ids in documents:
        separator = [] if before is None or eos in before[-2:] else between  # templates write a line break behind it
        before = ids[1:] if opens and ids[:1] == opening else ids
        yield separator, before


def _template(source: Source, tokenizer: Any) -> dict[str, str]:
    return {"chat_template": template_digest(tokenizer)} if source.chats else {}
