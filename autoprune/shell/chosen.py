"""The settings that a command was given: a file, options and `KEY=VALUE`, and what is no setting at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoprune import registry, rundir
from autoprune.config import SearchConfig, is_module, load_config
from autoprune.errors import UserError
from autoprune.files.near import did_you_mean
from autoprune.networks.recognise import check_directory
from autoprune.shell.volume import LOGGER
from autoprune.written import parse_overrides

TEXTS = (".txt", ".jsonl", ".json", ".csv", ".parquet", ".npz", ".md")
"""Endings of files that are data rather than anything else."""


def chosen_settings(file: Path | None, given: dict[str, Any], overrides: Sequence[str] | None) -> SearchConfig:
    """The configuration from a file, then options, then `KEY=VALUE`. Later ones take precedence.

    Raises:
        UserError: a setting is wrong, or the model is a path that leads nowhere: that is told before torch is imported.
    """
    for text in overrides or ():
        if "=" not in text:
            raise UserError(_stray(text))
    config = load_config(file, given | parse_overrides(overrides or ()))
    _check_places(config)
    check_names(config)
    LOGGER.debug("settings: %s", config.model_dump(exclude_defaults=True, exclude={"storage"}))
    return config


def check_run(run: Path, other: Path | None = None) -> None:
    """Raise a UserError where a run is not there; `other` is the argument behind it, which may be the run."""
    if other is not None and not (run / "config.yaml").is_file() and (other / "config.yaml").is_file():
        raise UserError(f"'{run}' is no run, and '{other}' is one: the run comes first, then where to write.")
    if not run.exists():
        rundir.check_is_run(run)


def check_there(path: Path) -> None:
    """Raise a UserError where a path leads nowhere, before torch is imported."""
    if not path.exists():
        raise UserError(f"no model directory at '{path}', and no run.{did_you_mean(path)}")


def _check_places(config: SearchConfig) -> None:
    """Raise a UserError where a model leads nowhere, or data lead to a model or a run."""
    data = [config.data] if isinstance(config.data, str) else list(config.data or ())
    if "" in (config.model, *data):
        name = "model" if config.model == "" else "data"
        raise UserError(f"--{name} is empty: leave it out for what is embedded, or give a path.")
    if isinstance(config.model, str) and not is_module(config.model):
        check_directory(config.model)
    for one in data:
        if Path(one).is_dir():
            _check_data(one)


def _check_data(folder: str) -> None:
    inside = {entry.name for entry in Path(folder).iterdir()}
    if "config.json" in inside and any(name.endswith(".safetensors") for name in inside):
        raise UserError(f"'{folder}' holds a network, not data. Did you mean --model {folder}?")
    if "config.yaml" in inside and inside & {"journal.jsonl", "policy.json"}:
        raise UserError(f"'{folder}' is a run, not data: --data takes a text, a table or images.")


def check_names(config: SearchConfig) -> None:
    """Look up the names of parts, without importing any.

    Raises:
        UserError: a part is not registered, and no object in a module or a file.
    """
    named = {"agents": [config.agent], "criteria": [config.criterion], "budgets": list(config.budgets)}
    named |= {"rewards": [config.reward] if config.reward else [], "tasks": [config.task] if config.task else []}
    for kind, names in named.items():
        for name in names:
            if Path(name).suffix.lower() not in registry.FILES.get(kind, {}):
                registry.target(kind, name)


def _stray(text: str) -> str:
    """What is told about an argument that is no setting."""
    meant, path = "", Path(text)
    if path.suffix in (".yaml", ".yml"):
        meant = f"--config {text}"
    elif path.is_dir() and (path / "config.yaml").is_file():
        return f"'{text}' is a run: `autoprune resume {text}` goes on with it. A setting is given as key=value."
    elif path.suffix in TEXTS and not path.is_dir():
        meant = f"--data {text}"
    elif path.is_dir() or "/" in text:
        meant = f"--model {text}"
    elif text == "%":
        return "'%' stands alone: write a share as one word, as --budget 50%."
    elif text in registry.names("agents"):
        meant = f"--agent {text}, or in a comparison --agents with commas, as --agents {text},random"
    elif text in SearchConfig.model_fields:
        meant = f"--{text.replace('_', '-')} VALUE, or {text}=VALUE"
    elif text.replace("%", "").replace(".", "").isdigit():
        meant = f"--budget {text}"
    else:
        meant = f"--model {text}"
    return f"'{text}' is not of the form key=value. Did you mean {meant}?"
