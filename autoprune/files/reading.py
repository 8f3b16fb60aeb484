"""The one reader of JSON and the one of YAML, and how what is wrong with a file becomes a sentence.

Nothing that is read is trusted: a file has a size, what is in it a depth, and its numbers are finite and fit 64 bits.
What breaks a rule is a ValueError that says which. `explained` makes the usual sentence of it, and of whatever else
goes wrong while a record is made of what was read.
"""

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from pydantic import ValidationError

from autoprune.errors import UserError

JSON_BYTES = 2**27  # costs of every group of a large network are some tens of megabytes
YAML_BYTES = 2**18  # what people write by hand; a reader of YAML is slow
DEPTH = 64  # of lists and mappings inside each other
NODES = 100_000  # of a YAML file, aliases written out
SUSPICIOUS = re.compile(r"\d{19}|[eE]\+?\d{3}|\\u[dD]")  # beyond 64 bits; infinite; half a character

DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What code raises that takes a damaged record for a sound one."""


def read_bytes(path: Path, most: int = JSON_BYTES) -> bytes:
    """A regular file's content.

    Args:
        path: the file. A pipe or a device has no end, and is refused.
        most: bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, or larger.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size:,} bytes, and at most {most:,} are read")
        return file.read()


def read_head(path: Path, count: int) -> bytes:
    """The first bytes of a regular file; raises as `read_bytes`."""
    with _open_regular(path) as file:
        return file.read(count)


def read_tail(path: Path, offset: int, most: int) -> bytes:
    """At most so many bytes of a regular file from an offset on; raises as `read_bytes`."""
    with _open_regular(path) as file:
        file.seek(offset)
        return file.read(most)


def _open_regular(path: Path) -> BinaryIO:
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        check_regular(os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def check_regular(status: os.stat_result) -> None:
    """Raise an OSError for a directory, a ValueError for a pipe or a device."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "Is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")


def read_json(path: Path) -> Any:
    """The record in a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or breaks a rule of this module.
    """
    return parse_json(read_bytes(path))


def parse_json(text: str | bytes) -> Any:
    """The record in a JSON text; a ValueError as of `read_json`."""
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        data = json.loads(text, parse_constant=_refused_constant)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    # what is checked one by one below can only be wrong where one of these is seen
    if text.count("[") + text.count("{") > DEPTH or SUSPICIOUS.search(text):
        _check(data)
    return data


def read_yaml(path: Path) -> Any:
    """The record in a YAML file; None of an empty one.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML, or breaks a rule of this module.
    """
    return parse_yaml(read_bytes(path, YAML_BYTES).decode("utf-8"))


def parse_yaml(text: str) -> Any:
    """The record in a YAML text; a ValueError as of `read_yaml`."""
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _written_out(node, {}, 0)
        _check_keys(node)
        data = loader.construct_document(node)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:  # of tags, the latter
        raise ValueError(f"it is no YAML: {' '.join(str(error).split())}") from None
    finally:
        if loader is not None:
            loader.dispose()
    _check(data)
    return data


@contextmanager
def explained(what: str, path: Path, way: str = "") -> Iterator[None]:
    """Turn whatever goes wrong with a file into one sentence.

    Args:
        what: the file is, as `the space file`.
        path: of the file.
        way: out, where there is one, as "`autoprune resume` writes it anew".

    Raises:
        UserError: the body raised an OSError, a ValueError or what else a damaged record makes code raise.
    """
    out = f": {way}." if way else "."
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} '{path}' cannot be read ({error.strerror or error}){out}") from error
    except ValidationError as error:
        raise UserError(f"{what} '{path}' is damaged ({first_of(error)}){out}") from error
    except DAMAGE as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here: the file is sound
            raise
        raise UserError(f"{what} '{path}' is damaged ({reason(error)}){out}") from error


def first_of(error: ValidationError) -> str:
    """The first thing that pydantic found, as `units.0.groups: Input should be greater than 0`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])[:100]
    message = first["msg"].removeprefix("Value error, ")[:300]
    return f"{where}: {message}" if where else message


def reason(error: BaseException) -> str:
    """The first line of what an exception says, short; a KeyError says nothing but the key."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 text, from byte {error.start} on"
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"[:200] if error.args else "it lacks something"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")


def _refused_constant(name: str) -> None:
    raise ValueError(f"it is no JSON: {name} is no number there")


def _written_out(node: yaml.Node, known: dict[int, int | None], depth: int) -> int:
    """How many nodes there are with every alias written out; refuses too many and those that hold themselves."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError("an alias stands inside of what it names")
        return size
    if depth > DEPTH:
        raise ValueError(_too_deep())
    known[id(node)], size = None, 1
    if isinstance(node, yaml.CollectionNode):
        inner = (part for pair in node.value for part in pair) if isinstance(node, yaml.MappingNode) else node.value
        for part in inner:
            size += _written_out(part, known, depth + 1)
            if size > NODES:
                raise ValueError(f"it has more than {NODES:,} values")
    known[id(node)] = size
    return size


def _check_keys(root: yaml.Node) -> None:
    """Raise a ValueError where a mapping has a key twice: YAML would take the last value in silence."""
    waiting, known = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        if not isinstance(node, yaml.CollectionNode):
            continue
        is_mapping = isinstance(node, yaml.MappingNode)
        if is_mapping:
            lines: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                name, line = (key.tag, str(key.value)), key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and name in lines:
                    raise ValueError(f"the key '{key.value}' is given twice, in lines {lines[name]} and {line}")
                lines[name] = line
        inner = [part for pair in node.value for part in pair] if is_mapping else node.value
        waiting += [part for part in inner if id(part) not in known]
        known |= {id(part) for part in inner}


def _check(data: Any) -> None:
    """Raise a ValueError unless a record is made of finite numbers, texts, lists and mappings, and not too deep."""
    waiting: list[tuple[Any, int]] = [(data, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, (list, dict)):
            if depth >= DEPTH:
                raise ValueError(_too_deep())
            waiting.extend((one, depth + 1) for one in value)
            if isinstance(value, dict):
                waiting.extend((one, depth + 1) for one in value.values())
        elif isinstance(value, str):
            value.encode("utf-8")  # an escape may have made half a character
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError(f"it holds the number {value}, which is not finite")
        elif isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise ValueError("it holds an integer beyond 64 bits")
        elif value is not None:
            raise ValueError(f"it holds a {type(value).__name__}, where a text in quotes may be meant")


def _too_deep() -> str:
    return f"its lists and mappings are more than {DEPTH} deep"
