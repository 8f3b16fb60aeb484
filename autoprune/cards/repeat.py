"""The commands that repeat a run, from its configuration.

Paths are those of the machine that made the run, and nobody else's: a command names files and folders without where
they were, and is run in a folder that holds them.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from autoprune.config import PLACES, SearchConfig
from autoprune.data_names import as_written

OPTIONS = ("model", "data", "agent", "seed")
"""Settings that are written as options; others are written as `key=value`."""
WITHIN = ("agent_options", "reward_options", "workload")
"""Settings that hold others, each of which is written by itself."""
LEFT_OUT = PLACES | {"study_name"}
"""Settings that change no result."""
RUN, NETWORK = "run", "pruned"
"""What the commands call the run, and what it is exported to."""


def search_command(config: SearchConfig) -> str:
    """`autoprune search ...` with every setting that is not the default, quoted for a shell."""
    settings = shared(differing(config))
    words = ["autoprune", "search"]
    for name in OPTIONS:
        if name == "data" and name in settings:
            words += [_option("--data", one) for one in as_written(settings.pop(name))]
        elif isinstance(settings.get(name), str | int):
            words.append(_option(f"--{name}", settings.pop(name)))
    budgets = settings.pop("budgets", {})
    if _are_bounds(budgets):
        words += [_option("--budget", f"{metric}={bound!r}") for metric, bound in budgets.items()]
    else:
        settings["budgets"] = budgets
    for key, value in settings.items():
        apart = key in WITHIN and isinstance(value, Mapping) and all(_is_key(name) for name in value)
        nested = {f"{key}.{name}": one for name, one in value.items()} if apart else {key: value}
        words += [shlex.quote(f"{name}={_yaml(one)}") for name, one in nested.items()]
    return " ".join([*words, "--out", RUN])


def finetune_command(given: Mapping[str, Any]) -> str:
    """`autoprune finetune ...` with the settings that were given."""
    known = {
        key: value for key, value in given.items() if value is not None and value != {"lora": 0, "seed": 0}.get(key)
    }
    return " ".join(["autoprune", "finetune", RUN, *(shlex.quote(f"{key}={_yaml(one)}") for key, one in known.items())])


def export_command(options: str) -> str:
    """`autoprune export ...` with an exporter's options."""
    return f"autoprune export {RUN} {NETWORK}{f' {options}' if options else ''}"


def differing(config: SearchConfig) -> dict[str, Any]:
    """The settings that are not the default, and the seed and the budgets in any case."""
    given = config.model_dump(exclude=LEFT_OUT)
    defaults = {key: field.get_default(call_default_factory=True) for key, field in SearchConfig.model_fields.items()}
    kept: dict[str, Any] = {}
    for key, value in given.items():
        default = defaults[key].model_dump() if hasattr(defaults[key], "model_dump") else defaults[key]
        if key in ("seed", "budgets", "agent"):
            kept[key] = value
        elif isinstance(default, dict) and isinstance(value, dict):
            inner = {name: one for name, one in value.items() if one != default.get(name)}
            kept |= {key: inner} if inner else {}
        elif value != default:
            kept[key] = value
    return kept


def files(config: SearchConfig) -> list[str]:
    """The names of the files and folders that the command reads."""
    found: list[str] = []
    _shared(differing(config), found)
    return list(dict.fromkeys(found))


def shared(value: Any) -> Any:
    """A setting, in which paths on this machine are names of files and folders."""
    return _shared(value, [])


def _shared(value: Any, found: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {_shared(key, found): _shared(one, found) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shared(one, found) for one in value]
    if not isinstance(value, str):
        return value
    path, colon, inside = value.rpartition(":") if _exists(value.rpartition(":")[0]) else (value, "", "")
    if not _exists(path):
        return value
    named = Path(os.path.abspath(os.path.expanduser(path))).name
    found.append(named)
    # a name alone could be taken for one of the hub or of the registry
    return f"{named}{colon}{inside}"


def _exists(text: str) -> bool:
    try:
        return bool(text) and os.path.exists(os.path.expanduser(text))
    except (OSError, ValueError):  # no path at all
        return False


def _option(flag: str, value: Any) -> str:
    text = value if isinstance(value, str) else _yaml(value)
    return f"{flag}={shlex.quote(text)}" if text.startswith("-") else f"{flag} {shlex.quote(text)}"


def _yaml(value: Any) -> str:
    """A value as `key=value` reads it."""
    return (
        str(yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True))
        .removesuffix("...\n")
        .strip()
    )


def _are_bounds(budgets: Any) -> bool:
    return isinstance(budgets, Mapping) and all(
        isinstance(bound, float) and metric for metric, bound in budgets.items()
    )


def _is_key(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and "=" not in name and "." not in name and name == name.strip()
