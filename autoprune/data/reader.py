"""The port of a form of file: how it is recognised, and what it holds.

A form is one class in `autoprune/data/` and one line in the registry (kind `readers`). Forms are asked in the order of
the registry, those of plug-ins first; the last, plain text, takes whatever no other form does.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoprune import registry, usercode
from autoprune.data.file import File
from autoprune.data.records import Records
from autoprune.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Documents that are tokens already: one tensor of token numbers for each."""

    documents: "list[Tensor]"


Content = str | Records | Tokens
"""What a file holds: one text, records with columns, or tokens."""


class Reader(ABC):
    """A form of file."""

    @abstractmethod
    def recognises(self, file: File) -> bool:
        """Whether a file is of this form, by its content and, where that is not enough, its name."""

    @abstractmethod
    def read(self, file: File) -> Content:
        """What it holds.

        Raises:
            UserError: it is damaged, or a package is missing.
        """


def content_of(file: File) -> Content:
    """What a file holds, by the first form that recognises it.

    Raises:
        UserError: it cannot be read.
    """
    for reader in _readers():
        if usercode.call("reader", reader.recognises, file):
            content: Content = usercode.call("reader", reader.read, file)
            return content
    raise UserError(f"'{file.called}' is of no form that is known: {', '.join(registry.names('readers'))}.")


def _readers() -> list[Reader]:
    own = list(registry.PARTS["readers"])
    names = [*(name for name in registry.names("readers") if name not in own), *own]
    found = []
    for name in names:
        part = registry.load("readers", name)
        if not (isinstance(part, type) and issubclass(part, Reader)):
            raise UserError(f"the reader '{name}' is no subclass of autoprune.data.reader.Reader.")
        found.append(usercode.call("reader", part))
    return found
