"""The settings that a command was given: a file, options and `KEY=VALUE`, and what is no setting at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoprune import registry
from autoprune.config import SearchConfig, is_module, load_config
from autoprune.errors import UserError
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
    if config.model is not None and not is_module(config.model):
        check_directory(config.model)
    check_names(config)
    LOGGER.debug("settings: %s", config.model_dump(exclude_defaults=True, exclude={"storage"}))
    return config


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
    elif text in SearchConfig.model_fields:
        meant = f"--{text.replace('_', '-')} VALUE, or {text}=VALUE"
    elif text.replace("%", "").replace(".", "").isdigit():
        meant = f"--budget {text}"
    else:
        meant = f"--model {text}"
    return f"'{text}' is not of the form key=value. Did you mean {meant}?"
