"""Markdown in which no name can become markup: names come from configurations, files and other people's cards."""

import re
from collections.abc import Sequence

from autoprune.terminal import clean

LONGEST = 200
"""Characters of a name. What is longer is cut."""
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,:/+'()-]*")
"""Text that means nothing to Markdown and HTML wherever it stands in a line."""


def one_line(text: object) -> str:
    """A text on one line, without control characters, and not too long."""
    line = " ".join(clean(str(text)).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def code(text: object) -> str:
    """A text as inline code, whatever backticks are in it."""
    line = one_line(text)
    fence = "`" * (1 + _longest_run(line))
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def name(text: object) -> str:
    """A name as it is, or as inline code where it could be taken for markup."""
    line = one_line(text)
    return line if PLAIN.fullmatch(line) and "://" not in line else code(line)


def block(text: str, language: str = "") -> str:
    """A fenced block of code, which no line of the text can close."""
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table. Cells are Markdown."""
    return [f"| {' | '.join(map(_cell, row))} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(text: str) -> str:
    """A cell's text, in which a bar ends no cell."""
    return text.replace("|", r"\|")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
