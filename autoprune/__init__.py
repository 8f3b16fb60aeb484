"""autoprune: search how much of every layer to keep, and get the smaller network."""

from typing import TYPE_CHECKING, Any

from autoprune import on_import as _on_import

if TYPE_CHECKING:
    from autoprune.api import compare, evaluate, finetune, load, push, resume, search
    from autoprune.callbacks import Callback
    from autoprune.config import SearchConfig
    from autoprune.envs.make import make_env
    from autoprune.errors import StopSearch, UserError
    from autoprune.policy import Policy
    from autoprune.result import SearchResult

__all__ = [
    "Callback", "Policy", "SearchConfig", "SearchResult", "StopSearch", "UserError", "compare", "evaluate", "finetune",
    "load", "make_env", "push", "resume", "search",
]  # fmt: skip

_on_import.install()

_HOME = {
    "Callback": "callbacks",
    "Policy": "policy",
    "SearchConfig": "config",
    "SearchResult": "result",
    "StopSearch": "errors",
    "UserError": "errors",
    "compare": "api",
    "evaluate": "api",
    "finetune": "api",
    "load": "api",
    "make_env": "envs.make",
    "push": "api",
    "resume": "api",
    "search": "api",
}


def __dir__() -> list[str]:
    """The public names: completion shows neither submodules that happen to be imported nor helpers of this file."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


def __getattr__(name: str) -> Any:
    """Names are imported when they are used: `autoprune --help` must not wait for torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("autoprune")
    if name not in _HOME:
        raise AttributeError(f"module 'autoprune' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"autoprune.{_HOME[name]}"), name)
