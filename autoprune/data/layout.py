"""Where documents begin in sequences, and which tokens the assistant says in chats.

Both lie beside the tokens of `sequences.py`, which are the same with and without them.

Shapes: N sequences, T tokens.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoprune.data.chats import Chat, as_texts
from autoprune.data.sequences import documents_of, opening_of, pieces
from autoprune.data.source import Source
from autoprune.errors import UserError

Marked = tuple[list[int], list[bool]]
"""Tokens of a document, and which of them the assistant says."""


@dataclass(frozen=True)
class Layout:
    """Args:
    documents: the number of each token's document in its source, `[N, T]`. A separator belongs to the document before.
    answers: whether the assistant says the token, `[N, T]`.
    """

    documents: Tensor
    answers: Tensor


def layout_of(source: Source, tokenizer: Any, length: int, answers: bool) -> Layout:
    """The layout of the sequences of one source.

    Args:
        source: the documents.
        tokenizer: of the network.
        length: tokens in a sequence.
        answers: whether it is wanted what the assistant says; otherwise no token is marked.

    Raises:
        UserError: which tokens the assistant says cannot be told of this chat template or tokenizer.
    """
    if source.tokens and all(len(document) == length for document in source.tokens):
        count = len(source.tokens)
        numbers_NT = torch.arange(count)[:, None].expand(count, length)
        return Layout(numbers_NT, torch.zeros(count, length, dtype=torch.bool))
    opening = opening_of(tokenizer)
    first, second = itertools.tee(_marked(source, tokenizer, answers))
    numbers: list[int] = []
    marks: list[bool] = []
    joined = pieces((ids for ids, _ in first), opening, tokenizer)
    for number, ((separator, ids), (_, said)) in enumerate(zip(joined, second, strict=True)):
        numbers += [number - 1] * len(separator) + [number] * len(ids)
        marks += [False] * len(separator) + said[len(said) - len(ids) :]
    body = length - len(opening)
    count = len(numbers) // body
    numbers_NT = torch.tensor(numbers[: count * body]).view(count, body)
    answers_NT = torch.tensor(marks[: count * body], dtype=torch.bool).view(count, body)
    opened = torch.zeros(count, len(opening), dtype=torch.bool)
    return Layout(
        torch.cat([numbers_NT[:, :1].expand(count, len(opening)), numbers_NT], dim=1),
        torch.cat([opened, answers_NT], 1),
    )


def _marked(source: Source, tokenizer: Any, answers: bool) -> Iterator[Marked]:
    """Each document."""
    if source.chats and answers:
        yield from _chats(source.chats, tokenizer, source.called)
        return
    yield from ((ids, [False] * len(ids)) for ids in documents_of(source, tokenizer))


def _chats(chats: Sequence[Chat], tokenizer: Any, called: str) -> Iterator[Marked]:
    if not getattr(tokenizer, "is_fast", False):
        raise UserError("answers_only=true needs a fast tokenizer, which says where in a text its tokens are.")
    for number, (chat, text) in enumerate(zip(chats, as_texts(chats, tokenizer, called), strict=True), 1):
        spans = answer_spans(chat, text, tokenizer, f"record {number} of '{called}'")
        told = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        yield (
            told.input_ids,
            [any(a <= begin < b and end > begin for a, b in spans) for begin, end in told.offset_mapping],
        )


def answer_spans(chat: Chat, text: str, tokenizer: Any, called: str) -> list[tuple[int, int]]:
    """Where in a chat's text the assistant speaks, with what ends its turns: `[begin, end)` in characters.

    A turn begins behind the text of the messages before it and the template's prompt for an answer. It ends where the
    text of the messages up to it ends. Templates whose texts do not begin alike are refused.

    Args:
        chat: the messages.
        text: the chat in the template.
        tokenizer: has the template.
        called: the name of the chat, for messages.

    Raises:
        UserError: the template writes an earlier turn in another way once a later one is there.
    """
    spans = []
    for i, message in enumerate(chat):
        if message["role"] != "assistant":
            continue
        before = _text(chat[:i], tokenizer, True)
        until = _text(chat[: i + 1], tokenizer, False).rstrip()
        if not (text.startswith(before) and text.startswith(until) and len(until) >= len(before)):
            raise UserError(
                f"answers_only=true: the chat template writes {called} in such a way that turn {i + 1} cannot be told "
                "from the others: leave answers_only."
            )
        spans.append((len(before), len(until)))
    return spans


def _text(chat: Chat, tokenizer: Any, answers: bool) -> str:
    if not chat:
        return ""
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=answers))
    except Exception as error:  # templates are programs, which raise what they like
        why = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise UserError(f"answers_only=true: the chat template does not take the start of a chat: {why}.") from error
