"""`autoprune init`: a file of settings from questions on a terminal, or from options."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from autoprune.command_output import emit
from autoprune.config import DEFAULT_TOKENS, SearchConfig, load_config
from autoprune.errors import UserError
from autoprune.files.writing import write_atomically
from autoprune.options import SETTINGS, settings
from autoprune.shell.arguments import Json, Overrides
from autoprune.shell.chosen import check_names
from autoprune.shell.root import app
from autoprune.shell.settings_file import written
from autoprune.terminal import echo
from autoprune.written import DEFAULT_BUDGETS, parse_overrides

DEFAULT = Path("settings.yaml")


@app.command()
@settings(SETTINGS)
def init(
    given: dict[str, Any],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file to write.")] = DEFAULT,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: Json = False,
) -> None:
    """Write a commented YAML file of settings, from questions or from options.

    On a terminal and without options it asks, with the defaults shown. Elsewhere it asks nothing. Every setting is in
    the file with its description; those that were not chosen are comments.
    """
    if "=" in file.name:  # the file was left out
        file, overrides = DEFAULT, [str(file), *(overrides or [])]
    if file.is_dir():
        raise UserError(f"'{file}' is a folder: give a file, as {file / DEFAULT}.")
    if not str(file).isprintable():  # it would end the comment that names it in the file
        raise UserError(f"the name {str(file)!r} holds line breaks or control characters: give another.")
    if file.exists() and not force:
        raise UserError(f"'{file}' exists: --force overwrites it, or give another name.")
    chosen = given | parse_overrides(overrides or [])
    if not chosen and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        chosen = asked()
    config = load_config(None, chosen)
    check_names(config)
    told = {name: config.model_dump(exclude_unset=True)[name] for name in _set(chosen)}
    command = f"autoprune search --config {shlex.quote(str(file))}"
    write_atomically(file, written(told, command))
    if as_json:
        emit({"path": str(file), "settings": told})
    else:
        echo(f"settings: {file}\nsearch:   {command}")


def _set(chosen: Mapping[str, Any]) -> list[str]:
    """Names of the settings that were chosen, of which some are within a mapping, as `workload.batch`."""
    names = {key.partition(".")[0] for key in chosen}
    return [name for name in SearchConfig.model_fields if name in names]


def asked() -> dict[str, Any]:
    """The settings that a person at a terminal chooses; what is left as it is shown is not among them."""
    echo("Enter keeps what is in brackets.")
    answers: dict[str, Any] = {}
    for name, question, default in QUESTIONS:
        while True:
            answer = typer.prompt(question, default=default).strip()
            if answer == default:
                break
            try:
                check_names(load_config(None, answers | {name: answer}))
            except UserError as error:
                echo(f"  {error}", err=True)
                continue
            answers[name] = answer
            break
    return answers


def _bound() -> str:
    return " ".join(f"{metric}={bound}" for metric, bound in DEFAULT_BUDGETS.items())


QUESTIONS = (
    ("model", "Model: a directory, a hub name, or FILE.py:FUNCTION", "the embedded one"),
    ("data", "Data: text, JSON lines, CSV, a folder, or images", "the embedded text"),
    ("budgets", "Budget, as params=50%", _bound()),
    ("agent", "Agent, see `autoprune list agents`", SearchConfig.model_fields["agent"].default),
    ("max_time", "Seconds of search at most", f"none; {DEFAULT_TOKENS:,} tokens"),
    ("seed", "Random seed", str(SearchConfig.model_fields["seed"].default)),
    ("device", "Device: cpu, cuda, cuda:1, ...", SearchConfig.model_fields["device"].default),
)
"""Setting, question, and what stands for its default."""
