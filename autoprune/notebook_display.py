"""Shows progress in a notebook: one output of its own, which is updated, so that what is logged cannot tear it."""

import time
from html import escape
from types import TracebackType
from typing import Any

from autoprune.progress import Display
from autoprune.terminal import clean

EVERY = 0.1  # seconds between two updates


class NotebookDisplay(Display):
    """A bar in the output of a notebook's cell, and the lines that stay visible above it. It needs no widgets."""

    def __init__(self) -> None:
        super().__init__()
        self._output: Any = None
        self._lines: list[str] = []
        self._shown_at = 0.0

    @property
    def _is_live(self) -> bool:
        return True

    def __enter__(self) -> "NotebookDisplay":
        return self  # the bar of the terminal is not started

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._output is not None:
            self._update("")

    def _line(self, line: str) -> None:
        self._lines.append(f"<div>{escape(clean(line))}</div>")
        self._update("")

    def _draw(self, name: str, share: float, details: str) -> None:
        now = time.monotonic()
        if now - self._shown_at < EVERY:
            return
        self._shown_at = now
        value = f'value="{share:.4f}"' if share > 0 else ""
        self._update(f"<div>{escape(clean(name))} <progress {value}></progress> {escape(clean(details))}</div>")

    def _update(self, bar: str) -> None:
        """Show the lines and a bar. The output is made when there is something to show."""
        from IPython.display import HTML, display

        content = HTML(f'<div style="font-family:monospace">{"".join(self._lines)}{bar}</div>')
        if self._output is None:
            self._output = display(content, display_id=True)
        else:
            self._output.update(content)
