"""Reads a file of settings, and checks their names."""

import difflib
from pathlib import Path
from typing import Any

from autoprune.errors import UserError
from autoprune.files.near import did_you_mean
from autoprune.files.reading import read_yaml, reason


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, by name. An empty file has none.

    Raises:
        UserError: the file is missing, is no YAML, or is no mapping.
    """
    try:
        data = read_yaml(path)
    except OSError as error:
        inside = path / "config.yaml"
        hint = f" Did you mean '{inside}'?" if inside.is_file() else "" if path.exists() else did_you_mean(path)
        raise UserError(f"the configuration '{path}' cannot be read ({error.strerror}).{hint}") from error
    except ValueError as error:
        raise UserError(f"the configuration '{path}' cannot be read: {reason(error)}.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"the configuration '{path}' must be a mapping of settings, not a {type(data).__name__}.")
    return data


def check_names(data: dict[str, Any], known: list[str], path: Path | None, within: str = "") -> None:
    """Raise a UserError if a setting is of none of the names, with near misses.

    Args:
        data: settings by name.
        known: the names.
        path: the file that they are from, if any.
        within: what stands before the names in messages, such as `workload.`.
    """
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean '{within}{near[0]}'?" if near else f" Known: {', '.join(known)}."
            raise UserError(f"no setting is called '{within}{key}'{f' (in {path})' if path else ''}.{hint}")
