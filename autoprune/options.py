"""Command-line options for the settings of a search, generated from the fields of `SearchConfig`.

A new field becomes an option, and its description becomes the help text. Fields that are mappings (`agent_options`,
`reward_options`, `workload`) have no option: users write `KEY.NAME=VALUE`.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_args

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from autoprune.config import LIMITS, PLACES, SearchConfig
from autoprune.errors import UserError
from autoprune.settings_record import Panel
from autoprune.shell.completion import completer
from autoprune.written import budgets_of

SETTINGS = [name for name in SearchConfig.model_fields if name not in ("agent_options", "reward_options", "workload")]
OF_PLACES = [name for name in SETTINGS if name in PLACES]
"""The settings that say where a search is scored."""
OF_RESUME = [name for name in SETTINGS if name in PLACES or name in LIMITS]
"""The settings that `resume` can change."""
AMOUNTS = {
    "device_memory": "SIZE", "state_memory": "SIZE", "max_evals": "N", "max_tokens": "N", "max_time": "TIME",
    "round_tokens": "N",
}  # fmt: skip
"""Settings that users may write with units, as 8GiB, 400k or 10min, and what help calls them."""

Command = Callable[..., None]


def settings(names: Iterable[str], kept: bool = False) -> Callable[[Command], Command]:
    """Give a command an option for each of these settings. Its argument `given` holds those that the user set.

    With `kept`, a setting that is not given stays as it was, and help shows no default of a new search.
    """
    chosen = {name: SearchConfig.model_fields[name] for name in names}

    def of_command(command: Command) -> Command:
        @functools.wraps(command)
        def called(**arguments: Any) -> None:
            options = {name: arguments.pop(name) for name in chosen}
            given = {name: _value(name, option) for name, option in options.items() if option not in (None, [])}
            command(**arguments, given=given)

        own = [one for one in inspect.signature(command).parameters.values() if one.name != "given"]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name, field, kept))
            for name, field in chosen.items()
        ]
        places = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        called.__signature__ = inspect.Signature([*places, *added])  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in [*places, *added]}
        return called

    return of_command


def _option(name: str, field: FieldInfo, kept: bool) -> Any:
    """The annotation from which typer makes the option."""
    flag, kinds = f"--{name.replace('_', '-')}", _kinds(field)
    panel = next((one.title for one in field.metadata if isinstance(one, Panel)), None)
    made: dict[str, Any] = {
        "help": _help(name, field, kept),
        "rich_help_panel": panel,
        "autocompletion": completer(name),
    }
    if name == "budgets":
        return Annotated[list[str] | None, typer.Option("--budget", metavar="METRIC=VALUE", **made)]
    if name == "data":
        return Annotated[list[str] | None, typer.Option(flag, metavar="DATA[=WEIGHT]", **made)]
    if name in AMOUNTS:
        return Annotated[str | None, typer.Option(flag, metavar=AMOUNTS[name], **made)]
    if kinds[-1] == list[float]:
        numbers = "N|F,F,..." if int in kinds else "F,F,..."
        return Annotated[str | None, typer.Option(flag, metavar=numbers, **made)]
    if kinds[0] is bool:
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", **made)]
    kind = kinds[0] if kinds[0] in (int, float) else str
    metavar = "|".join(kinds) if isinstance(kinds[0], str) else None
    return Annotated[kind | None, typer.Option(flag, metavar=metavar, **made)]


def _kinds(field: FieldInfo) -> list[Any]:
    """The types, or the texts, that a setting may be."""
    return [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]


def _help(name: str, field: FieldInfo, kept: bool) -> str:
    """The description as a sentence, and the default of a new search. Rich reads it as markup."""
    told, default = f"{str(field.description)[0].upper()}{str(field.description)[1:]}", field.default
    if name == "budgets":
        default = "params=0.5"
    if kept:
        told, default = re.sub(r"; (the default|without any limit).*", "", told), None
    shown = "" if default is None or default is False else f" [dim]{escape(f'[default: {default}]')}[/dim]"
    return f"{escape(told)}.{shown}"


def _value(name: str, option: Any) -> Any:
    """The value of an option; lists and budgets are parsed here, because typer gives their text."""
    if name == "budgets":
        return budgets_of(option)
    if name not in ("levels", "image_mean", "image_std"):
        return option
    try:
        return int(option) if option.strip("+-").isdigit() else [float(number) for number in option.split(",")]
    except ValueError:
        what = (
            "a number of levels or fractions kept, as 9 or 1,0.5,0" if name == "levels" else "numbers, as 0.5,0.5,0.5"
        )
        raise UserError(f"--{name.replace('_', '-')} takes {what} (got '{option}').") from None
