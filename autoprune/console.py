"""rich's console, for tables and bars; apart from `terminal`, since rich takes a while to import."""

from typing import Any

from rich.console import Console
from rich.text import Text

from autoprune.terminal import clean


class CleanConsole(Console):
    """rich's, whose texts, in tables and titles too, do not steer the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it."""
        return super().render_str(clean(text), **options)
