"""What one name of data stands for: documents as texts, chats or tokens, and what chose them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoprune.data.chats import Chat
from autoprune.data.reader import Content, Tokens
from autoprune.data.records import read_column

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Source:
    """Documents of one of `texts`, `chats` and `tokens`.

    Args:
        called: the name, for messages.
        column: of the records that were read; None of what has none.
        split: of the data set; None of what has none.
        notices: sentences for the user.
    """

    called: str
    texts: Sequence[str] = ()
    chats: Sequence[Chat] = ()
    tokens: "Sequence[Tensor]" = ()
    column: str | None = None
    split: str | None = None
    notices: tuple[str, ...] = ()

    @property
    def marks(self) -> dict[str, Any]:
        """What decided beside the content."""
        return {key: value for key in ("column", "split") if (value := getattr(self, key)) is not None}


def source_of(content: Content, called: str, column: str | None) -> Source:
    """The documents of what a file holds.

    Raises:
        UserError: as `read_column`.
    """
    if isinstance(content, str):
        return Source(called, texts=[content])
    if isinstance(content, Tokens):
        return Source(called, tokens=content.documents)
    read = read_column(content, column, called)
    return Source(called, read.texts, read.chats, column=read.name, notices=read.notices)


def together(sources: Sequence[Source], called: str, split: str | None) -> Source:
    """The files of one folder as one source."""
    first = sources[0]
    return Source(
        called,
        [text for source in sources for text in source.texts],
        [chat for source in sources for chat in source.chats],
        [document for source in sources for document in source.tokens],
        first.column,
        split,
        first.notices,
    )
