"""Lists the parts that can be chosen by name, with the first line of their docstrings. Parts are not imported."""

import ast
import difflib
import importlib.util
from functools import cache
from pathlib import Path

from autoprune import registry
from autoprune.errors import UserError


def describe(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Descriptions of one kind or of all kinds: kind -> name -> description.

    Raises:
        UserError: no such kind.
    """
    if kind is not None and kind not in registry.PARTS:
        near = difflib.get_close_matches(kind, registry.PARTS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        inside = [one for one in registry.PARTS if kind in registry.names(one)]
        if inside:
            hint = f" It is a part: `autoprune list {inside[0]}` describes it."
        raise UserError(f"there is no kind of parts '{kind}'.{hint} Known: {', '.join(registry.PARTS)}.")
    return {k: {name: _line(k, name) for name in registry.names(k)} for k in ([kind] if kind else registry.PARTS)}


def _line(kind: str, name: str) -> str:
    module, _, attribute = registry.target(kind, name).partition(":")
    neighbours = [target for target in registry.PARTS[kind].values() if target.startswith(f"{module}:")]
    tree = _parse(module)
    if tree is None:
        return f"(in {module}, which cannot be found)"
    # one part a file is described by the file; where several share one, each by itself
    own = next((node for node in tree.body if getattr(node, "name", None) == attribute), None)
    described = own if len(neighbours) > 1 and isinstance(own, (ast.ClassDef, ast.FunctionDef)) else tree
    line = (ast.get_docstring(described) or "").partition("\n")[0]
    if kind != "families":
        return line
    types = registry.load(kind, name).model_types
    return f"{line} Model types: {', '.join(types)}." if types else line


@cache
def _parse(module: str) -> ast.Module | None:
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return None
    if spec is None or spec.origin is None:
        return None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
