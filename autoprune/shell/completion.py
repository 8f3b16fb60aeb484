"""What a shell completes: names of parts, and directories of runs."""

from collections.abc import Callable, Iterator
from pathlib import Path

from autoprune import registry

KINDS = {
    "agent": "agents", "budgets": "budgets", "criterion": "criteria", "loss": "losses", "model": "models",
    "reward": "rewards", "task": "tasks",
}  # fmt: skip
"""Setting -> the kind of its parts."""

Completer = Callable[[str], list[str]]
RUN_FILES = ("config.yaml", "compare.yaml")
DEEPEST = 2  # folders below the present one in which runs are looked for


def completer(setting: str) -> Completer | None:
    """What completes a setting; None leaves it to the shell."""
    if setting == "pretrained":
        return runs
    if setting not in KINDS:
        return None
    suffix = "=" if setting == "budgets" else ""
    return lambda incomplete: [f"{name}{suffix}" for name in registry.names(KINDS[setting])]


def agents(incomplete: str) -> list[str]:
    """Names with commas between them, as `--agents` takes them."""
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in registry.names("agents") if name not in before.split(",")]


def kinds(incomplete: str) -> list[str]:
    """Kinds of parts."""
    return list(registry.PARTS)


def exporters(incomplete: str) -> list[str]:
    """Names of exporters."""
    return registry.names("exporters")


def runs(incomplete: str) -> list[str]:
    """Directories of runs and comparisons below the present one, or below what has been typed."""
    typed = incomplete.rpartition("/")[0]
    start = Path(typed or ("/" if incomplete.startswith("/") else "."))
    return sorted(str(path) for path in _below(start, DEEPEST))


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return
    for entry in inside:
        if any((entry / name).is_file() for name in RUN_FILES):
            yield entry
        elif depth > 1:
            yield from _below(entry, depth - 1)
