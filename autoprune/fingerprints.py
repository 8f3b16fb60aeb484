"""Fingerprints of objects that no file holds: code, settings and weights. Equal objects have equal fingerprints.

An object is read as pickle would read it, and nothing is written. Functions and classes of installed packages are
their names; others are their byte code, with the values that they refer to.
"""

import dis
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Iterable
from typing import Any

LENGTH = 16
"""Hexadecimal digits of a fingerprint."""
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
PROCESS = os.urandom(8).hex()
"""Enters the fingerprint of what cannot be read, such as an open file: it is known to this process only."""
BESIDES = {
    "__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__slotnames__", "__annotations_cache__",
    "_abc_impl",
}  # fmt: skip
"""Entries of a class that do not change what it does."""
OF_A_RUN = {"training"}
"""Entries of a module that a search sets itself."""


def fingerprint(value: Any) -> str:
    """The fingerprint of an object, 16 hexadecimal digits. Reads every weight once."""
    walk = _Walk()
    try:
        walk.read(value)
    except RecursionError:
        walk.opaque(value)
    return walk.sha.hexdigest()[:LENGTH]


class _Walk:
    def __init__(self) -> None:
        self.sha = hashlib.sha256()
        self._seen: dict[int, tuple[int, Any]] = {}  # holds what it has seen, so that no number is used twice

    def read(self, value: Any) -> None:
        """Add an object and what it consists of."""
        if isinstance(value, PLAIN) and type(value) in PLAIN:
            return self._told(type(value).__name__, repr(value))
        if id(value) in self._seen:
            return self._told("again", str(self._seen[id(value)][0]))
        self._seen[id(value)] = len(self._seen), value
        if isinstance(value, types.ModuleType):
            self._told("module", value.__name__)
        elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType) and _installed(value):
            self._told("name", f"{value.__module__}:{value.__qualname__}")
        elif isinstance(value, type):
            own = {key: entry for key, entry in vars(value).items() if key not in BESIDES}
            self._all("class", [value.__qualname__, *value.__bases__, own])
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.CodeType):
            self._all("code", [value.co_code, value.co_names, value.co_varnames, value.co_consts])
        else:
            self._object(value)
        return None

    def _function(self, function: types.FunctionType) -> None:
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        named = {name: function.__globals__.get(name) for name in sorted(_globals(function.__code__))}
        self._all("function", [function.__code__, function.__defaults__, function.__kwdefaults__, cells, named])

    def _object(self, value: Any) -> None:
        torch = sys.modules.get("torch")
        if type(value) in (list, tuple):
            self._all(type(value).__name__, value)
        elif type(value) in (set, frozenset):
            self._all("set", sorted(fingerprint(one) for one in value))
        elif type(value) is dict or isinstance(value, types.MappingProxyType):
            self._all("dict", [part for pair in value.items() for part in pair])
        elif isinstance(value, property):
            self._all("property", [value.fget, value.fset])
        elif isinstance(value, staticmethod | classmethod):
            self._all(type(value).__name__, [value.__func__])
        elif torch is not None and isinstance(value, torch.Tensor):
            self._tensor(value, torch)
        elif torch is not None and isinstance(value, torch.nn.Module):
            self._all("network", [type(value), {k: v for k, v in vars(value).items() if k not in OF_A_RUN}])
        else:
            self._state(value)

    def _tensor(self, tensor: Any, torch: Any) -> None:
        self._told("tensor", f"{tensor.dtype} {tuple(tensor.shape)}")
        try:
            self.sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        except (NotImplementedError, RuntimeError, TypeError):  # one without values, or of packed ones
            self.opaque(tensor)

    def _state(self, value: Any) -> None:
        """Whatever else: the parts from which pickle would make it again."""
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # the user's code, or what cannot be pickled
            return self.opaque(value)
        if isinstance(parts, str):
            return self._told("name", f"{type(value).__module__}:{parts}")
        return self._all("object", [list(part) if hasattr(part, "__next__") else part for part in parts])

    def opaque(self, value: Any) -> None:
        """Add an object that cannot be read: it equals itself alone."""
        self._told("opaque", f"{type(value).__qualname__} {PROCESS} {id(value)}")

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        values = list(values)
        self._told(kind, str(len(values)))
        for value in values:
            self.read(value)

    def _told(self, kind: str, text: str) -> None:
        self.sha.update(f"{kind} {len(text)} {text};".encode("utf-8", "surrogatepass"))


def _installed(value: Any) -> bool:
    """Whether a class or function is of a package that is installed, and is found there by its name."""
    module = sys.modules.get(value.__module__ or "")
    if module is None or "<" in value.__qualname__ or value.__module__ == "__main__":
        return False
    file = getattr(module, "__file__", None)
    homes = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
    return file is None or module.__name__.partition(".")[0] == "autoprune" or file.startswith(homes)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # an empty one
        return False


def _globals(code: types.CodeType) -> set[str]:
    """Names that some code, and the code within it, reads from its module."""
    own = {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (_globals(one) for one in code.co_consts if isinstance(one, types.CodeType))
    return own.union(*inner)
