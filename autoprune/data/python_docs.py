"""Python documentation text, taken from the running Python.

The text is what autoprune's tiny default model was trained and measured on: the
reference topics of ``pydoc`` and the docstrings of the standard library. Sources are
parsed, never imported.
"""

import ast
import functools
import importlib
import inspect
import os
import sysconfig
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

HELD_OUT_PERCENT = 28
"""Share of the document names, in per cent, that the tiny model never trained on."""

_SKIPPED = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "ensurepip",
    "__pycache__",
}
_MIN_CHARS = 300  # shorter documents say nothing (one-line codecs, empty packages)
_LONG_PARAGRAPH = 80  # characters from which a repeated paragraph is left out
_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def documents() -> list[tuple[str, str]]:
    """Return all documents as (name, text), sorted by name.

    A module's document is named after the module and holds its docstrings in source
    order, each under its qualified name. A reference topic is named ``topics:NAME``.
    A long paragraph appears only in the first document that has it. The list is empty
    when this Python has neither sources nor topics.
    """
    return list(_documents())


def is_held_out(name: str) -> bool:
    """Return whether the document called ``name`` is kept out of training."""
    return zlib.crc32(name.encode()) % 100 < HELD_OUT_PERCENT


@functools.cache
def held_out_text() -> str:
    """Return the held-out documents as one text (about 0.6 MB).

    Raises ``UserError`` when this Python carries no documentation to read.
    """
    texts = [text for name, text in _documents() if is_held_out(name)]
    if not texts:
        from autoprune.errors import UserError

        raise UserError(
            "This Python has no standard-library sources and no pydoc topics, so there "
            "is no default calibration text; pass a text file with --data FILE."
        )
    return "\n\n".join(texts)


def source_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (module name, file) for the Python sources under ``root``, in order.

    Test folders, caches and folders that are no packages are left out, and so are
    ``site-packages`` folders below ``root``.
    """
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name.isidentifier() and name not in _SKIPPED)
        package = Path(folder).relative_to(root).parts
        for file in sorted(files):
            stem, _, suffix = file.partition(".")
            if suffix == "py" and stem.isidentifier():
                module = package if stem == "__init__" else (*package, stem)
                yield ".".join(module) or stem, Path(folder, file)


def docstrings(module: str, source: bytes) -> Iterator[tuple[str, str]]:
    """Yield (qualified name, docstring) of a module and what it defines, in order.

    Yields nothing when ``source`` cannot be parsed by the running Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    yield from _docstrings(module, tree)


def join_entries(entries: Iterable[tuple[str, str]]) -> str:
    """Return one text that holds each docstring under its qualified name."""
    return "\n\n".join(f"{name}\n{text}" for name, text in entries)


def drop_repeats(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield (name, text) without the long paragraphs that an earlier text has."""
    seen: set[int] = set()
    for name, text in pairs:
        kept = []
        for paragraph in text.split("\n\n"):
            if len(paragraph) >= _LONG_PARAGRAPH:
                key = hash("".join(paragraph.split()))
                if key in seen:
                    continue
                seen.add(key)
            kept.append(paragraph)
        yield name, "\n\n".join(kept)


@functools.cache
def _documents() -> tuple[tuple[str, str], ...]:
    pairs = sorted([*_module_documents(), *_topic_documents()])
    return tuple((n, t) for n, t in drop_repeats(pairs) if len(t) >= _MIN_CHARS)


def _module_documents() -> Iterator[tuple[str, str]]:
    stdlib = sysconfig.get_path("stdlib")
    if not stdlib or not os.path.isdir(stdlib):
        return
    for module, file in source_files(Path(stdlib)):
        try:
            source = file.read_bytes()
        except OSError:
            continue
        yield module, join_entries(docstrings(module, source))


def _topic_documents() -> Iterator[tuple[str, str]]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError):
        return
    for name, text in topics.items():
        yield f"topics:{name}", inspect.cleandoc(text)


def _docstrings(name: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, (ast.Module, ast.ClassDef, *_Function)):
        text = ast.get_docstring(node)
        if text and text.strip():
            yield name, text.strip()
    if not isinstance(node, _Function):
        for child in _statements(node):
            inner = name
            if isinstance(child, (ast.ClassDef, *_Function)):
                inner = f"{name}.{child.name}"
            yield from _docstrings(inner, child)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for field in ("body", "handlers", "orelse", "finalbody"):
        yield from getattr(node, field, [])
