"""Changes the limits of a run that goes on. It then ends as a run that was started with them; its scores are free."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autoprune.config import LIMITS, SearchConfig, load_config
from autoprune.errors import UserError
from autoprune.files.reading import DAMAGE, parse_json, read_bytes, read_json
from autoprune.files.writing import write_atomically
from autoprune.journal import BYTES
from autoprune.journal import FILE as JOURNAL
from autoprune.policy import to_json

SPENT = {"max_evals": "evals", "max_tokens": "tokens", "max_time": "seconds"}
"""The limits, and what is spent of them."""


def change(run: Path, settings: Mapping[str, Any]) -> None:
    """Write those of the settings that are limits to the run's configuration, which the caller has locked.

    Raises:
        UserError: a limit is no number above 0, or lower than what the run has spent.
    """
    limits = {name: value for name, value in settings.items() if name in LIMITS}
    if limits:
        config = load_config(run / "config.yaml", limits)
        check(run, config, limits)
        save(run, config)


def save(run: Path, config: SearchConfig) -> None:
    """Write the configuration of a run that begins or goes on, which the caller has locked.

    The result of a run whose limits change is marked as interrupted: if the run is killed then, it is known to go on.

    Raises:
        UserError: the run's configuration is damaged, or the disk is full.
    """
    path = run / "config.yaml"
    if path.exists() and any(getattr(load_config(path), name) != getattr(config, name) for name in LIMITS):
        _mark_as_interrupted(run / "result.json")
    config.save(path)


def check(run: Path, config: SearchConfig, changed: Iterable[str]) -> None:
    """Raise a UserError if a limit that was changed is lower than what the run has spent.

    Args:
        run: the run's directory. A run that has not begun has spent nothing.
        config: the configuration with the new limits.
        changed: names of settings; those that are no limits do not count.
    """
    there = spent(run)
    for limit, name in SPENT.items():
        wanted, used = getattr(config, limit), there.get(name, 0)
        if limit in changed and wanted is not None and wanted < used:
            word = "evaluations" if name == "evals" else name
            shown = f"{used:,.1f} {word}" if name == "seconds" else f"{used:,} {word}"
            raise UserError(
                f"the run '{run}' has spent {shown}, and {limit}={wanted:,} is lower: give a higher limit, or start a "
                "new search with this one."
            )


def spent(run: Path) -> dict[str, float]:
    """Evaluations, tokens and seconds that a run had spent at its last end; of a killed run, those of its scores."""
    try:
        found = read_json(run / "result.json")["spent"]
        return {name: found[name] for name in SPENT.values()}
    except (OSError, *DAMAGE):
        return _journalled(run)


def _mark_as_interrupted(path: Path) -> None:
    try:
        result = read_json(path)
    except (OSError, *DAMAGE):  # there is none, or `resume` writes it anew
        return
    if isinstance(result, dict):
        write_atomically(path, to_json(result | {"interrupted": True}) + "\n")


def _journalled(run: Path) -> dict[str, float]:
    try:
        length, raw = load_config(run / "config.yaml").sequence_length, read_bytes(run / JOURNAL, BYTES)
        lines = [parse_json(line) for line in raw.splitlines(keepends=True)[1:] if line.endswith(b"\n")]
        scores = [line for line in lines if "losses" in line]
        tokens = length * sum(len(line["losses"]) for line in scores)
        return {"evals": len(scores), "tokens": tokens, "seconds": max((line["seconds"] for line in lines), default=0)}
    except (OSError, UserError, *DAMAGE):  # it has not begun, or `resume` tells what is wrong with it
        return {}
