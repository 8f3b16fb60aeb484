"""What `autoprune evaluate` prints: the words of the tables of a search, with units. `--json` has the keys."""

from collections.abc import Iterator, Mapping
from typing import Any

from autoprune.cost_lines import amount
from autoprune.task_choice import built_in

SPREAD = "speed_spread"
NAMES = {"params": "parameters", "bytes": "weights"}
PER = "_per_second"


def lines_of(report: Mapping[str, Any]) -> list[str]:
    """One line for each number, in two columns.

    Args:
        report: as `autoprune.evaluate` returns it.
    """
    rows = list(_rows(report))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    measures = {
        one.name.replace("-", "_").replace(" ", "_"): one for words in built_in().values() for one in words.measures
    }
    speeds = [key for key in report if key.endswith(PER)]
    items = [key.removesuffix(PER) for key in speeds if not key.startswith("dense_")]
    for key, value in report.items():
        if key in measures:
            yield measures[key].name, measures[key].written(value)
        elif key in speeds:
            dense, spread = key.startswith("dense_"), report.get(SPREAD)
            about = "" if dense or spread is None else f" ± {spread:.0%} (half of the readings lie within)"
            item = key.removeprefix("dense_").removesuffix(PER)
            yield f"{item}/s{', dense' if dense else ''}", f"{value:,.0f}{about}"
        elif key in items:
            yield "measured on", f"{value:,} {key}"
        elif key == "bytes":
            yield NAMES[key], amount(value, "bytes")
        elif key.startswith("macs_per_"):
            yield f"MACs/{key.removeprefix('macs_per_')}", _number(value)
        elif key != SPREAD:
            yield NAMES.get(key, key.replace("_", " ")), _number(value)


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
