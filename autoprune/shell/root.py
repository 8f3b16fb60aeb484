"""The command `autoprune` itself: its options, and what becomes of mistakes."""

import os
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from autoprune.errors import Notice, UserError
from autoprune.faults import outside_fault
from autoprune.shell import mistakes
from autoprune.shell.app import Group, Shell
from autoprune.shell.volume import LOGGER, VOLUME, Quiet, Verbose
from autoprune.terminal import echo

app = Shell(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search how much of every layer of a network to keep, and get the smaller network.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        echo(f"autoprune {version('autoprune')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and end.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Search how much of every layer of a network to keep, and get the smaller network."""


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning as a line; a notice as a search prints its own."""
    echo(f"autoprune: {'' if issubclass(category, Notice) else 'warning: '}{message}", err=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Exits with 0, 2 for a user's mistake, 130 for Ctrl-C; anything else is a bug."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # their warnings and bars would tear our progress
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.showwarning = _show_warning
    warnings.filterwarnings("ignore", module=r"(torch|transformers|huggingface_hub)\b")
    VOLUME.reset()
    try:
        given = None if arguments is None else list(arguments)
        status = app(args=given, prog_name="autoprune", standalone_mode=False)
    except mistakes.UsageError as error:
        mistakes.tell(error)
        status = 2
    except typer.Abort:  # of a question
        echo("autoprune: interrupted.", err=True)
        status = 130
    except UserError as error:
        if error.__cause__ is not None:
            LOGGER.debug("what was raised below", exc_info=error.__cause__)
        _fail(str(error))
    except Exception as error:
        told = outside_fault(error)
        if told is None:
            raise
        _fail(told)
    raise SystemExit(status)


def _fail(message: str) -> None:
    echo(f"autoprune: error: {' '.join(message.split())}", err=True)
    raise SystemExit(2) from None
