"""Makes transformers know pruned models, without importing it: `import autoprune` must stay light.

`install` leaves a finder at the head of `sys.meta_path` that waits for the module with transformers' table of
configurations. When somebody imports that module, the finder lets it be imported as ever, enters `PrunedConfig` and
goes. Where the module was imported before, it is done at once.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

AWAITED = "transformers.models.auto.configuration_auto"


def install() -> None:
    """Register pruned models with transformers now, or as soon as it is imported. Calling it again does nothing."""
    loaded: Any = sys.modules.get(AWAITED)
    if hasattr(loaded, "CONFIG_MAPPING"):
        _register(loaded)
    elif not any(isinstance(finder, _Awaiter) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Awaiter())


def _register(configuration_auto: Any) -> None:
    from autoprune.models.pruned import MODEL_TYPE, PrunedConfig

    configuration_auto.CONFIG_MAPPING.register(MODEL_TYPE, PrunedConfig, exist_ok=True)


class _Awaiter(MetaPathFinder):
    """Finds one module only, by asking the finders behind it, and wraps its loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != AWAITED:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader, self)
        return spec


class _Registering(Loader):
    """Loads a module as its own loader does, then registers. If that fails, the next import tries again."""

    def __init__(self, loader: Loader, awaiter: _Awaiter) -> None:
        self._loader, self._awaiter = loader, awaiter

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        # the module and its spec look from here on as if nobody had stood between
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        _register(module)
        if self._awaiter in sys.meta_path:
            sys.meta_path.remove(self._awaiter)
