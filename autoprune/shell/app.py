"""The typer application of autoprune: commands with examples, which refuse what is given twice or mistyped."""

import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from autoprune.shell.examples import EXAMPLES
from autoprune.shell.mistakes import SEEN, check_dashes, check_once
from autoprune.shell.volume import with_volume

LONG = 16  # characters of a flag


class Command(TyperCommand):
    """A command whose help ends with examples."""

    def make_parser(self, ctx: Any) -> Any:
        """The parser; it refuses an option that is given twice, unless it is a list."""
        return checking(super().make_parser(ctx), self, ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Panels of options as typer draws them, then the examples."""
        with without_long_opposites(self):
            plain_types(self.get_params(ctx))
            super().format_help(ctx, formatter)
        print_examples(EXAMPLES.get(self.name or "", ""))


class Group(TyperGroup):
    """The command `autoprune` itself."""

    def make_parser(self, ctx: Any) -> Any:
        """As of a command."""
        return checking(super().make_parser(ctx), self, ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The commands in their panels, then the examples."""
        plain_types(self.get_params(ctx))
        super().format_help(ctx, formatter)
        print_examples(EXAMPLES[""])

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the examples."""
        order = list(EXAMPLES)
        return sorted(super().list_commands(ctx), key=lambda name: order.index(name) if name in order else len(order))


class Shell(typer.Typer):
    """A typer application. Every command that it is given gets `-q`, `-v` and examples."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """As of typer; the help is the docstring of the function."""

        def of(function: Any) -> Any:
            shown: dict[str, Any] = {"cls": Command, "help": unwrapped(inspect.getdoc(function) or "")}
            super(Shell, self).command(name, **shown | options)(with_volume(function))
            return function

        return of


def unwrapped(text: str) -> str:
    """A docstring with one line for each paragraph, which the terminal's width then wraps."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def plain_types(parameters: Iterable[Any]) -> None:
    """Show no type of switches and of lists of arguments, and numbers without the word "range".

    Typer writes `<bool>` behind a switch, as if it took a value, and `<list[str]>` behind `KEY=VALUE`.
    """
    for one in parameters:
        if getattr(one, "is_flag", False) or (one.param_type_name == "argument" and one.nargs != 1):
            one.display_type_rich = lambda ctx: None
        elif "display_type_rich" not in vars(one):
            one.display_type_rich = functools.partial(_type_of, one.display_type_rich)


def _type_of(shown: Callable[..., str | None], ctx: Any) -> str | None:
    text = shown(ctx=ctx)
    return text and text.replace(" range>", ">")


@contextmanager
def without_long_opposites(command: Any) -> Iterator[None]:
    """Leave `--no-...` of long flags out of help: typer sets it in a column, and would cut all columns short."""
    long = [one for one in command.params if any(len(flag) > LONG for flag in one.secondary_opts)]
    opposites = [one.secondary_opts for one in long]
    for one in long:
        one.secondary_opts = []
    try:
        yield
    finally:
        for one, flags in zip(long, opposites, strict=True):
            one.secondary_opts = flags


def checking(parser: Any, command: Any, ctx: Any) -> Any:
    """A parser that looks for frequent mistakes before and after it has parsed."""
    parse = parser.parse_args

    def parse_args(args: list[str]) -> Any:
        if not ctx.resilient_parsing:  # as the completion of a shell parses
            check_dashes(list(args), command, ctx)
        values, rest, order = parse(args=args)
        if not ctx.resilient_parsing:
            check_once(Counter(order), ctx)
            ctx.meta[SEEN] = values
        return values, rest, order

    parser.parse_args = parse_args
    return parser


def print_examples(examples: str) -> None:
    """Print a panel of examples like the panels of options."""
    if not examples:
        return
    from rich.panel import Panel
    from rich.text import Text

    from autoprune.console import CleanConsole

    text = Text("\n").join(Text(line, "dim" if line.startswith("#") else "") for line in examples.splitlines())
    CleanConsole(highlight=False).print(Panel(text, title="Examples", title_align="left", border_style="dim"))
