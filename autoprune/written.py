"""Parses budgets, sizes and `key=value` settings as people write them, and hides passwords in URLs."""

import math
import os
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, overload

from autoprune.errors import UserError
from autoprune.files.reading import parse_yaml, reason

DEFAULT_BUDGETS = {"params": 0.5}


@overload
def without_password(url: str) -> str: ...


@overload
def without_password(url: None) -> None: ...


def without_password(url: str | None) -> str | None:
    """A storage URL that may be shown. Whatever may be a password is hidden."""
    if url is None:
        return None
    url = re.sub(r"^((?:[\w+.-]+://)?+[^:]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&;]\w*(?:passw|pwd|secret|token)\w*=)[^&;]*", r"\1***", url, flags=re.IGNORECASE)


def parse_budget(text: str) -> tuple[str, float]:
    """Read `params=0.5`, `params=50%`, `params=1.2M` or `macs=3e9` as metric and bound. `0.5` alone bounds params.

    Raises:
        UserError: not of that form.
    """
    metric, separator, value = text.rpartition("=")
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?\d+)?)([kMGTB%]?)", value.strip())
    try:
        if match is None or (separator and not metric.strip()):
            raise ValueError
        scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "%": 1}[match[2]]
        bound = float(match[1]) * scale / (100 if match[2] == "%" else 1)
    except ValueError:
        raise UserError(
            f"the budget '{text[:200]}' is not of the form METRIC=VALUE, as params=0.5, params=50% or params=1.2M."
        ) from None
    if match[2] == "%" and bound > 1:
        raise UserError(f"the budget '{text[:200]}' is more than the whole network: a share is at most 100%.")
    return metric.strip() or "params", bound


def budgets_of(given: Any) -> dict[Any, Any]:
    """Metrics and bounds from any form that a user may write: a mapping, a bound, `"macs=0.5"`, or a list of these.

    Raises:
        UserError: the value has none of these forms.
    """
    if given is None:
        return dict(DEFAULT_BUDGETS)
    if isinstance(given, Mapping):
        return {path_as_text(metric): _bound(metric, bound) for metric, bound in given.items()}
    if isinstance(given, str):
        return dict([parse_budget(given)])
    if isinstance(given, Real) and not isinstance(given, bool):
        return {"params": _float(given)}
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, str) for one in given):
        return _once_each(parse_budget(one) for one in given)
    raise UserError(
        f"the budgets {given!r} are none: give 0.5, '50%', 'params=1.2M' or a mapping, as {{'params': 0.5}}."
    )


def _once_each(bounds: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for metric, bound in bounds:
        if metric in found:
            raise UserError(f"{metric} is given two budgets, {found[metric]:g} and {bound:g}: give the one that holds.")
        found[metric] = bound
    return found


def _bound(metric: Any, bound: Any) -> Any:
    if isinstance(bound, bool):
        raise UserError(f"the budget {metric}={bound} is no number: give one as 0.5, 50% or 1.2M.")
    if isinstance(bound, str):
        return parse_budget(f"{metric}={bound}")[1]
    return _float(bound) if isinstance(bound, Real) else bound


def _float(bound: Real) -> float:
    """A bound as a float: infinite, which is refused, where none is as large."""
    try:
        return float(bound)
    except OverflowError:
        return math.inf


def path_as_text(value: Any) -> Any:
    """A path as text; anything else unchanged."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def parse_size(text: str) -> int:
    """`8GiB`, `500MB`, `1073741824` -> bytes.

    Raises:
        UserError: not of that form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), flags=re.IGNORECASE)
    if match is None:
        raise UserError(f"the size '{text}' is not of the form NUMBER UNIT, as 8GiB or 500MB.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " "))


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` -> key and the value read as YAML.

    Raises:
        UserError: not of that form.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"'{text}' is not of the form key=value.")
    try:
        return key.strip(), parse_yaml(value)
    except ValueError as error:
        raise UserError(f"the value in '{text[:200]}' cannot be read: {reason(error)}.") from None


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Several `key=value`, as `parse_override` reads each.

    Raises:
        UserError: one is not of that form, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for key, value in map(parse_override, texts):
        if key in found and found[key] == value:
            raise UserError(f"{key}={value} is given twice: give it once.")
        if key in found:
            raise UserError(f"{key} is given two values, {found[key]!r} and {value!r}: give the one that holds.")
        found[key] = value
    return found
