"""What frequent mistakes at the command line get: one sentence with what was meant."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from autoprune.shell.examples import EXAMPLES
from autoprune.terminal import echo

UsageError: Any = typer.BadParameter.__bases__[0]
"""What typer raises for arguments that do not fit a command. Typer gives it no public name."""

SYNONYMS = {
    "agents": "--agent", "algorithm": "--agent", "calibration": "--data", "cuda": "--device cuda", "dataset": "--data",
    "evals": "--max-evals", "gpu": "--device cuda", "keep": "--budget", "model-path": "--model",
    "output": "--out", "output-dir": "--out", "prune": "--budget", "ratio": "--budget", "sparsity": "--budget",
    "steps": "--max-evals", "time": "--max-time", "timeout": "--max-time", "tokens": "--max-tokens", "format": "--to",
}  # fmt: skip
"""What people call an option, and the option."""

COMMANDS = {
    "prune": "search", "run": "search", "start": "search", "continue": "resume", "train": "finetune", "save": "export",
    "convert": "export", "eval": "evaluate", "test": "evaluate", "plot": "report", "view": "show", "ls": "list",
    "info": "show", "config": "init", "tune": "finetune", "benchmark": "compare",
}  # fmt: skip
"""What people call a command, and the command."""


SEEN = "autoprune.seen"
"""The key of a context of typer under which the texts of options are kept for messages."""


def check_once(seen: Mapping[Any, int], ctx: Any) -> None:
    """Refuse an option that is given more than once, unless it is a list or says how much is said.

    Raises:
        UsageError: of typer.
    """
    for option, count in seen.items():
        if count > 1 and option.param_type_name == "option" and not option.multiple and option.name != "verbose":
            flag = max(option.opts, key=len)
            raise UsageError(f"{flag} is given {_times(count)}: give it once.", ctx=ctx)


def check_dashes(args: list[str], command: Any, ctx: Any) -> None:
    """Refuse a long option behind a single dash, which would be read as many short ones.

    Raises:
        UsageError: of typer.
    """
    known = set(_flags(command, ctx))
    for arg in args:
        if arg == "--":
            return
        word = arg.partition("=")[0]
        if re.fullmatch(r"-[A-Za-z][A-Za-z_-]+", word):
            meant = f"--{word[1:].replace('_', '-')}"
            if meant in known:
                raise UsageError(f"No such option: {word}. Did you mean {meant}?", ctx=ctx)


def tell(error: Any) -> None:
    """Say what is wrong with the arguments: the usage, then a sentence with what may be meant."""
    if type(error).__name__ == "NoArgsIsHelpError":  # its help has been printed
        return
    ctx = getattr(error, "ctx", None)
    option, parameter = getattr(error, "option_name", ""), getattr(error, "param", None)
    sentence = " ".join((error.message if option else error.format_message()).split())
    if ctx is None:
        echo(f"autoprune: error: {sentence}", err=True)
        return
    seen = ctx.meta.get(SEEN, {}).get(getattr(parameter, "name", None))
    if seen is not None:
        sentence = f"{sentence.rstrip('.')} (got {seen!r})"
    sentence += "" if sentence.endswith((".", "?")) else "."
    hint = "" if "Did you mean" in sentence else _hint(sentence, option, ctx)
    echo(ctx.get_usage(), err=True)
    echo(f"autoprune: error: {sentence}{hint} `{ctx.command_path} --help` lists what there is.", err=True)


def _hint(sentence: str, option: str, ctx: Any) -> str:
    """What a person may have meant, as a sentence behind the mistake."""
    if option:
        return _hint_of_option(option, ctx.command, ctx)
    name = re.search(r"No such command '(.*)'", sentence)
    if name:
        return _hint_of_command(name[1], ctx.command)
    if sentence.lower().startswith("missing argument 'run'"):
        newest = newest_run()
        return f" The newest run here is '{newest}'." if newest else " `autoprune search` begins one."
    return ""


def _hint_of_option(option: str, command: Any, ctx: Any) -> str:
    commands = getattr(command, "commands", {})
    behind = [name for name in EXAMPLES if name in commands and option in _flags(commands[name], ctx)]
    if behind:
        return f" It belongs behind a command, as `autoprune {behind[0]} {option}`."
    known = list(_flags(command, ctx))
    word = option.strip("-").replace("_", "-")
    meant = SYNONYMS.get(word, "")
    if meant.split(" ")[0] in known:
        return f" Did you mean {meant}?"
    near = difflib.get_close_matches(f"--{word}", [flag for flag in known if flag.startswith("--")], n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _hint_of_command(name: str, group: Any) -> str:
    known = list(getattr(group, "commands", ()))
    near = difflib.get_close_matches(name, known, n=1)
    meant = COMMANDS.get(name) or (near[0] if near else "")
    if meant in known:
        return f" Did you mean '{meant}'?"
    if name == "help":
        return " Did you mean --help?"
    if Path(name).exists():
        return f" A command comes first, as `autoprune show {name}` or `autoprune search --model {name}`."
    return ""


def _flags(command: Any, ctx: Any) -> Iterator[str]:
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "option":
            yield from (*parameter.opts, *parameter.secondary_opts)


def newest_run() -> Path | None:
    """The run in `runs/` that was written to last."""
    configs = [*Path("runs").glob("*/config.yaml")]
    return max(configs, key=lambda path: path.stat().st_mtime).parent if configs else None


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"
