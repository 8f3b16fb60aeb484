"""Registers autoprune with libraries when they are imported. `import autoprune` itself does not import them.

`when_imported` puts a finder at the head of `sys.meta_path` that waits for one module. When that module is imported,
the finder lets the import happen, calls back and removes itself. If the module is imported already, it calls at once.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Callback = Callable[[Any], None]


def install() -> None:
    """Register pruned models with transformers and the environment with Gymnasium. A second call does nothing."""
    when_imported("transformers.models.auto.configuration_auto", _register_pruned_models)
    when_imported("gymnasium.envs.registration", _register_environment)


def _register_pruned_models(configuration_auto: Any) -> None:
    from autoprune.networks.pruned import MODEL_TYPE, PrunedConfig

    configuration_auto.CONFIG_MAPPING.register(MODEL_TYPE, PrunedConfig, exist_ok=True)


def _register_environment(registration: Any) -> None:
    if "autoprune/Pruning-v0" not in registration.registry:
        registration.register("autoprune/Pruning-v0", entry_point="autoprune.envs.make:make_env")


def when_imported(name: str, callback: Callback) -> None:
    """Call `callback` once with the module `name`, as soon as the module has been imported."""
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        callback(module)
    elif not any(isinstance(finder, _Awaiter) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Awaiter(name, callback))


class _Awaiter(MetaPathFinder):
    """Finds one module only, by asking the finders behind it, and wraps its loader."""

    def __init__(self, name: str, callback: Callback) -> None:
        self.name, self._callback = name, callback

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _CallingBack(spec.loader, self)
        return spec

    def arrived(self, module: ModuleType) -> None:
        self._callback(module)
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class _CallingBack(Loader):
    """Loads a module as its own loader does, then calls back. If that fails, the next import tries again."""

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
        self._awaiter.arrived(module)
