"""What is printed: names and messages come from files of strangers, and none of it may steer the terminal."""

import re
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but line feed and tab, what turns the direction of writing, and halves of characters."""


def clean(text: str) -> str:
    """The text with what steers a terminal written out, as `\\u001b`: visible, and the same in JSON."""
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def echo(text: str, err: bool = False) -> None:
    """Print a line on stdout, or on stderr."""
    print(clean(text), file=sys.stderr if err else sys.stdout, flush=True)


class CleanConsole(Console):
    """rich's, whose texts, in tables and titles too, do not steer the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it."""
        return super().render_str(clean(text), **options)
