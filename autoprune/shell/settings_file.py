"""Files of settings for people: every setting with what it is for, the chosen ones set and the others as comments."""

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autoprune.config import SearchConfig
from autoprune.settings_record import Panel

WIDTH = 100


def written(chosen: Mapping[str, Any], command: str) -> str:
    """The text of a file of settings.

    Args:
        chosen: settings by name. They are set; all others are comments that show the defaults.
        command: the command that searches with the file.
    """
    lines = [
        f"# Settings of a search: {command}",
        "# A line without its # sets a setting; those that stay are as here.",
    ]
    for title, fields in by_panel().items():
        lines += ["", f"# -- {title} {'-' * (WIDTH - len(title) - 6)}"]
        for name, field in fields.items():
            lines += ["", *_comment(field), *_setting(name, field, chosen)]
    return "\n".join(lines) + "\n"


def by_panel() -> dict[str, dict[str, FieldInfo]]:
    """The settings of a search by what they are for, in the order of the record."""
    panels: dict[str, dict[str, FieldInfo]] = {}
    for name, field in SearchConfig.model_fields.items():
        title = next((one.title for one in field.metadata if isinstance(one, Panel)), "Others")
        panels.setdefault(title, {})[name] = field
    return panels


def _comment(field: FieldInfo) -> list[str]:
    told = f"{str(field.description)[0].upper()}{str(field.description)[1:]}."
    return [f"# {line}" for line in textwrap.wrap(told, WIDTH - 2, break_on_hyphens=False)]


def _setting(name: str, field: FieldInfo, chosen: Mapping[str, Any]) -> list[str]:
    """A setting as YAML; as a comment unless it is chosen."""
    if name in chosen:
        return _yaml({name: chosen[name]})
    default = field.get_default(call_default_factory=True)
    shown = default.model_dump() if isinstance(default, BaseModel) else default
    return [f"# {line}" for line in _yaml({name: shown})]


def _yaml(data: Mapping[str, Any]) -> list[str]:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000).splitlines()
