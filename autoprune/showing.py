"""Which callbacks of our own a call from Python has: the log, and the progress where there is somebody to see it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from autoprune.callbacks import Callback, Callbacks, CallbacksGiven
from autoprune.logs import Log
from autoprune.ports.task import Progress

Showing = bool | Progress | None
"""What a user may give as `progress`: None shows it on a terminal and in a notebook, True everywhere, as lines where
there is no terminal, and False nowhere. A function is called with the stage and the share of it that is done."""


@contextmanager
def showing(progress: Showing, given: CallbacksGiven = None, run: Path | None = None) -> Iterator[Callbacks]:
    """The callbacks of a call: the log, the display while the context lasts, and those that the user gave.

    Args:
        progress: what the user gave.
        given: the user's callbacks.
        run: of a comparison, its directory, which is named instead of those of its searches.

    Raises:
        UserError: something that was given is no callback.
    """
    from autoprune.networks.quiet import without_bars
    from autoprune.progress import display_of

    ours: list[Callback] = [Log()]
    display = None if callable(progress) else display_of(progress)
    if callable(progress):
        ours.append(_OfProgress(progress))
    elif display is not None:
        display.run = run
        ours.append(display)
    told = Callbacks(given, ours)
    with without_bars(), display or nullcontext():
        yield told


class _OfProgress(Callback):
    """A user's function as a callback; what it raises passes unchanged."""

    def __init__(self, function: Progress) -> None:
        self._function = function

    def on_stage(self, stage: str, share: float) -> None:
        self._function(stage, share)
