"""Parses budgets, sizes and `key=value` settings as people write them, and hides passwords in URLs."""

import math
import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any, overload

from autoprune.errors import UserError
from autoprune.files.reading import parse_yaml, reason
from autoprune.wording import OF_UNITS

DEFAULT_BUDGETS = {"params": 0.5}
SMALL = 100  # no network has so few parameters or MACs: 50 is meant as 50%


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
    """Read a budget as metric and bound. A bound without a metric bounds params.

    | written | bound | meaning |
    |---|---|---|
    | `params=0.5`, `params=50%` | 0.5 | a half is kept at most |
    | `params=-30%`, `params=-0.3` | 0.7 | 30 % are removed at least |
    | `params=1.2M`, `macs=3e9`, `params=1,200,000` | 1200000.0 | so much is kept at most |
    | `params=-2M` | -2000000.0 | so much is removed at least |

    Raises:
        UserError: not of that form, a share of more than the whole network, or nothing would be left.
    """
    metric, separator, value = text.rpartition("=")
    match = re.fullmatch(r"([-\u2212]?)([0-9.,_]+(?:e[+-]?[0-9]+)?)\s*([kKMGTB%]?)", value.strip())
    try:
        if match is None or (separator and not metric.strip()):
            raise ValueError
        scale = {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "%": 1}[match[3]]
        bound = _number(match[2]) * scale / (100 if match[3] == "%" else 1)
    except ValueError:
        raise UserError(f"the budget '{text[:200]}' is not of the form METRIC=VALUE{_hint(value)}") from None
    if match[3] == "%" and bound > 1:
        does = "removes" if match[1] else "is"
        raise UserError(f"the budget '{text[:200]}' {does} more than the whole network: a share is at most 100%.")
    return metric.strip() or "params", _left(text, bound) if match[1] else bound


def _number(text: str) -> float:
    """A number, with or without commas or underscores between its thousands.

    Raises:
        ValueError: none.
    """
    if re.fullmatch(r"[1-9][0-9]{0,2}([,_][0-9]{3})+(\.[0-9]+)?", text):
        text = re.sub("[,_]", "", text)
    elif re.search("[,_]", text):
        raise ValueError
    return float(text)


def _hint(value: str) -> str:
    """The end of the message about a budget that cannot be read."""
    if re.fullmatch(r"\s*-?[0-9.]+\s*([kMGT]?i?B|[mu]?s|bytes)\s*", value):
        return ", and VALUE has no unit: latency is in ms, activation in bytes, as latency=12 or activation=8M."
    return ", as params=0.5, params=50%, params=-30% (removed) or params=1.2M."


def _left(written: str, removed: float) -> float:
    """The bound where so much is removed: the share that is left, or a negative number for an absolute one.

    Raises:
        UserError: nothing is left.
    """
    if removed == 1:
        raise UserError(f"the budget '{written[:200]}' removes everything: give less, as params=-30%.")
    return -removed if removed > 1 else float(1 - Decimal(repr(removed)))  # 0.3, where floats give 0.30000000000000004


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
        return {"params": _float("params", given)}
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
    return _float(metric, bound) if isinstance(bound, Real) else bound


def _float(metric: Any, bound: Real) -> float:
    """A bound as a float: infinite, which is refused, where none is as large. Up to 1 removed, it is what is left."""
    try:
        number = float(bound)
    except OverflowError:
        return math.inf
    return _left(f"{metric}={number:g}", -number) if -1 <= number < 0 else number


def check_bound(metric: str, bound: float) -> None:
    """Refuse a bound that no network meets, and a small number that a user probably meant as a share.

    Raises:
        ValueError: with the reason.
    """
    if not math.isfinite(bound) or bound == 0 or -1 <= bound < 0:
        raise ValueError(f"the budget {metric}={bound:g} must be a number above 0, or less than -1 for what is removed")
    if metric in OF_UNITS and 1 < abs(bound) <= SMALL:
        share = f"{bound:g}% or {bound / 100:g} for a share, " if abs(bound) < SMALL else ""
        raise ValueError(
            f"the budget {metric}={bound:g} is a number of single {OF_UNITS[metric]}: write {share}{bound:g}k or "
            f"{bound:g}M for a number"
        )


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
        raise UserError(f"the size '{text[:200]}' is not of the form NUMBER UNIT, as 8GiB or 500MB.")
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
