"""Prints text safely: names and messages may come from untrusted files and must not control the terminal."""

import re
import sys

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except line feed and tab, characters that change the writing direction, and lone surrogates."""


def clean(text: str) -> str:
    """The text with what steers a terminal written out, as `\\u001b`: visible, and the same in JSON."""
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def echo(text: str, err: bool = False) -> None:
    """Print a line on stdout, or on stderr."""
    print(clean(text), file=sys.stderr if err else sys.stdout, flush=True)
