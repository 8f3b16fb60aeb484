"""Chats: records of messages, of OpenAI (role, content) or ShareGPT (from, value), as text of a template."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.errors import UserError

Chat = list[dict[str, Any]]
"""Messages with `role` and `content`, as chat templates take them."""
ROLES = {"human": "user", "gpt": "assistant", "bard": "assistant", "chatgpt": "assistant"}
"""ShareGPT's names for roles; others are the same."""


def chat_of(value: Any) -> Chat | None:
    """The messages of a value of a record; None where it is no chat."""
    if not (isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and value):
        return None
    if not all(isinstance(message, Mapping) for message in value):
        return None
    if all("role" in message and "content" in message for message in value):
        return [{key: part for key, part in message.items() if part is not None} for message in value]
    if all("from" in message and "value" in message for message in value):
        return [
            {"role": ROLES.get(str(message["from"]), str(message["from"])), "content": message["value"]}
            for message in value
        ]
    return None


def as_texts(chats: Sequence[Chat], tokenizer: Any, called: str) -> list[str]:
    """Chats as texts, by the chat template of the tokenizer.

    Raises:
        UserError: the tokenizer has no chat template, or the template does not take a chat.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise UserError(
            f"'{called}' holds chats, and the tokenizer of '{tokenizer.name_or_path}' has no chat template: give a "
            "model that was trained on chats, or name a column of texts with data_column=NAME."
        )
    texts = []
    for number, chat in enumerate(chats, 1):
        try:
            texts.append(str(tokenizer.apply_chat_template(chat, tokenize=False)))
        except Exception as error:  # templates are programs, which raise what they like
            why = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            raise UserError(
                f"the chat template of the tokenizer does not take record {number} of '{called}': {why}."
            ) from error
    return texts


def template_digest(tokenizer: Any) -> str:
    """A hash of the chat template."""
    return hashlib.sha256(json.dumps(tokenizer.chat_template, sort_keys=True).encode()).hexdigest()[:16]
