"""The console of rich, for tables and bars. It is not in `terminal` because rich takes long to import."""

from typing import Any

from rich.console import Console
from rich.text import Text

from autoprune.terminal import clean


class CleanConsole(Console):
    """A console of rich whose texts cannot send control sequences to the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it."""
        return super().render_str(clean(text), **options)
