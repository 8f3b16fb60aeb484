"""Lists the parts that can be chosen by name, with the first line of their docstrings. Parts are not imported."""

import ast
import difflib
import importlib.util
import re
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
        if kind == "metrics":
            hint = " The metrics that a budget can bound are listed by `autoprune list budgets`."
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
    if kind == "rewards" and own is not None:
        return f"{line}{_options(own)}"
    if kind != "families":
        return line
    types = registry.load(kind, name).model_types
    return f"{line} Model types: {', '.join(types)}." if types else line


def _options(part: ast.stmt) -> str:
    """The options of a reward as a sentence: the keyword-only arguments, their defaults and their descriptions."""
    if not isinstance(part, ast.FunctionDef):
        return ""
    about, told = described(ast.get_docstring(part) or ""), []
    for one, default in zip(part.args.kwonlyargs, part.args.kw_defaults, strict=True):
        value = "" if default is None else f"={ast.unparse(default)}"
        told.append(f"{one.arg}{value}: {about[one.arg]}" if one.arg in about else f"{one.arg}{value}")
    return f" Options: {'. '.join(told)}." if told else ""


def described(docstring: str) -> dict[str, str]:
    """The arguments that a docstring describes: name -> description, without its full stop."""
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", docstring.partition("Args:\n")[2], re.MULTILINE)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in found}


@cache
def _parse(module: str) -> ast.Module | None:
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return None
    if spec is None or spec.origin is None:
        return None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
