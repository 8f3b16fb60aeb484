"""How much a command says: `-q` only the result, `-v` what the logger `autoprune` has to say, too."""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Annotated, Any

import typer

from autoprune.errors import UserError
from autoprune.terminal import echo

LOGGER = logging.getLogger("autoprune")


class _Lines(logging.Handler):
    """Writes records of the logger on stderr, as everything else is written there."""

    def emit(self, record: logging.LogRecord) -> None:
        echo(self.format(record), err=True)


class Volume:
    """How much the present command says."""

    def __init__(self) -> None:
        self.quiet = self.verbose = False
        self._handler = _Lines(logging.DEBUG)
        self._handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._before = LOGGER.level

    def reset(self) -> None:
        """Say as much as without `-q` and `-v`: a process may run several commands."""
        if self.quiet or self.verbose:
            LOGGER.setLevel(self._before)
        LOGGER.removeHandler(self._handler)
        self.quiet = self.verbose = False

    def set(self, quiet: bool = False, verbose: bool = False) -> None:
        """Say less or more.

        Raises:
            UserError: both are asked for.
        """
        if not (quiet or verbose):
            return
        if not (self.quiet or self.verbose):
            self._before = LOGGER.level
        self.quiet, self.verbose = self.quiet or quiet, self.verbose or verbose
        if self.quiet and self.verbose:
            raise UserError("-q (--quiet) says less and -v (--verbose) says more: give one of them.")
        LOGGER.setLevel(logging.DEBUG if self.verbose else logging.ERROR)
        if self.verbose and self._handler not in LOGGER.handlers:
            LOGGER.addHandler(self._handler)


VOLUME = Volume()


def _quiet(asked: bool) -> None:
    VOLUME.set(quiet=asked)


def _verbose(asked: bool) -> None:
    VOLUME.set(verbose=asked)


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_quiet, is_eager=True, help="Print the result, and nothing else.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_verbose, is_eager=True, help="Say more: log at level DEBUG.")
]


def with_volume(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options `-q` and `-v`."""

    @functools.wraps(command)
    def called(*, quiet: bool, verbose: bool, **arguments: Any) -> Any:  # their callbacks have done all
        return command(**arguments)

    own = [one.replace(kind=one.KEYWORD_ONLY) for one in inspect.signature(command).parameters.values()]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in (("quiet", Quiet), ("verbose", Verbose))
    ]
    called.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in [*own, *added]}
    return called
