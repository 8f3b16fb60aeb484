"""Plain text: whatever is text and no other form."""

from autoprune.data.file import File
from autoprune.data.reader import Reader


class PlainText(Reader):
    """Takes every text that no form before it takes."""

    def recognises(self, file: File) -> bool:
        """Always."""
        return True

    def read(self, file: File) -> str:
        """The text."""
        return file.text
