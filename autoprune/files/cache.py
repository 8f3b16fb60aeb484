"""The folder that keeps what can be made again: level stores, bundles of workers, data that were given in Python."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """`$AUTOPRUNE_CACHE`, or `~/.cache/autoprune`."""
    return Path(os.environ.get("AUTOPRUNE_CACHE") or Path.home() / ".cache" / "autoprune")
