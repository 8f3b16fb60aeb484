"""The ports: what each kind of part must offer, what it may offer besides, and what holds where it does not.

Each port is a class in a file of its own. A part is a subclass of its port; the engine asks for nothing that the port
does not declare.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.ports.exporter import Exporter

_HOME = {
    "Exporter": "exporter",
}

__all__ = ["Exporter"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'autoprune.ports' has no attribute '{name}'")
    return getattr(importlib.import_module(f"autoprune.ports.{_HOME[name]}"), name)
