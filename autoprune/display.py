"""Prints tables and bars on stdout.

It imports neither torch nor transformers, so that `autoprune show` answers at once.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from autoprune import live
from autoprune.console import CleanConsole
from autoprune.cost_lines import amount, bound_cells, budgets_asked, budgets_in, cost_lines, number, other_budgets
from autoprune.fine_tuned import Finetuned, forecast_told
from autoprune.level import left, what_is_kept
from autoprune.policy import BEST, Cost, Policy, UnitPolicy
from autoprune.recovery.result import won_back
from autoprune.refit_text import told
from autoprune.table_fitting import fitted, needed, parts_of
from autoprune.task_choice import measure, words_of
from autoprune.wording import Words, duration

BARS = (16, 8)  # characters of one unit's bar, where there is room and where there is less
WIDTH = 80  # of tables where stdout is no terminal and COLUMNS is not set


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, later: Sequence[str] = ()
) -> None:
    """Print a table on stdout within the width of the terminal, as several tables if it is too narrow.

    Args:
        title: stands above it.
        columns: heads.
        rows: cells.
        left: how many columns hold names. They are set left, the others right.
        later: heads of columns that go into a second table before the others do.
    """
    out = console()
    for n, part in enumerate(parts_of(columns, rows, left, out.width, later)):
        drawn = Table(
            title=None if n else title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False,
            padding=(0, 1) if part.wide else (0, 1, 0, 0), show_edge=part.wide,
        )  # fmt: skip
        for i, column in enumerate(part.columns):
            drawn.add_column(column, justify="left" if i < left else "right", no_wrap=True)
        for row in part.rows:
            drawn.add_row(*row)
        out.print(drawn, *([] if part.wide else [""]), width=max(out.width, needed(part)), sep="\n")


def console() -> Console:
    """The console on the present stdout. Where that is no terminal, it is as wide as `COLUMNS` or `WIDTH` says."""
    stdout = CleanConsole(highlight=False, markup=False)
    if stdout.is_terminal:
        return stdout
    asked = os.environ.get("COLUMNS", "")
    return CleanConsole(highlight=False, markup=False, width=int(asked) if asked.isdecimal() and int(asked) else WIDTH)


def print_results(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    loss: str,
    said: Words,
    costs: Mapping[str, Cost] = MappingProxyType({}),
) -> None:
    """Print policies measured on the validation split: dense, uniform, best found; or a front.

    Args:
        title: stands above the table.
        rows: as `result.json` has them.
        loss: name of the loss.
        said: the words of the task.
        costs: of a policy file. Their budgets are columns, with the bounds in a last row.
    """
    others, bounds = other_budgets(costs), bound_cells(costs)
    columns = ["", f"loss ({live.shown(loss)})", said.quality.name, "parameters", f"MACs/{said.item}"]
    speed = f"{said.items}/s"
    cells = [
        [
            row["name"], _loss(row["validation_loss"]), said.quality.written(row[said.quality.key]),
            number(row["params"]), number(row["macs"]),
            *(one.cell(row.get("costs", {}).get(one.metric)) for one in others), _speed(row),
        ]
        for row in rows
    ]  # fmt: skip
    cells += [["at most", "", "", *bounds]] if bounds else []
    print_table(title, [*columns, *(one.column for one in others), speed], cells, later=[speed])
    for one in budgets_in(costs):
        console().print(f"budget:  {one.told}", soft_wrap=True)


def print_comparison(results: Mapping[str, Any]) -> None:
    """Print the agents by their mean validation loss, the reference policies below them, and the failed searches."""
    named = live.told_apart(row["agent"] for row in results["table"])
    rows = [_standing(row, named[row["agent"]]) for row in results["table"]]
    ranked = {row["agent"] for row in results["table"]}
    others = {name: one for name, one in results["references"].items() if name not in ranked}
    rows += [["", name, "", _loss(one["loss"])] for name, one in others.items()]
    columns = [
        "",
        "agent",
        "seeds",
        f"loss ({live.shown(results['config']['loss'])})",
        "best seed",
        "worst seed",
        "behind the first",
    ]
    said = words_of(results)
    if said.quality.averages:
        columns.insert(4, said.quality.name)
        for row, one in zip(rows, [*results["table"], *others.values()], strict=True):
            row[4:4] = [said.quality.written(one[said.quality.key])] if said.quality.key in one else []
    title = "Validation split, mean ± standard deviation over seeds"
    print_table(title, columns, rows, left=2, later=["worst seed"])
    spent = [_spent(row, named[row["agent"]]) for row in results["table"] if row["seeds"]]
    print_table("Searches, means over seeds", ["", "search loss", said.items, "evaluations", "seconds"], spent)
    config = results["config"]
    asked = budgets_asked(config["budgets"], config.get("of", "prunable")).replace(" %", "%")  # as the tables above
    console().print(f"budgets: {asked}", soft_wrap=True)
    for one in results["searches"]:
        if "failed" in one:
            console().print(f"{live.shown(one['agent'])} seed {one['seed']} failed: {one['failed']}", soft_wrap=True)


def _standing(row: Mapping[str, Any], name: str) -> list[str]:
    """A row of the table; empty but for the name where no search has an answer."""
    if not row["seeds"]:
        return ["", name, f"0/{row['failed']}"]
    seeds = f"{row['seeds']}/{row['seeds'] + row['failed']}" if row["failed"] else str(row["seeds"])
    ends = [f"{row[end]['seed']}: {_loss(row[end]['loss'])}" for end in ("best", "worst")]
    behind = "" if row["behind"] is None else f"+{_plus_minus(row['behind'], row['behind_error'])}"
    return [str(row["rank"]), name, seeds, _plus_minus(row["loss"], row["sd"]), *ends, behind]


def _spent(row: Mapping[str, Any], name: str) -> list[str]:
    spent = [f"{row[key]:,.0f}" for key in ("tokens", "evals")]
    return [name, _loss(row["search_loss"]), *spent, f"{row['seconds']:.1f}"]


def _plus_minus(value: float, spread: float | None) -> str:
    return _loss(value) if spread is None else f"{_loss(value)} ± {_loss(spread)}"


def print_policy(found: Policy, said: Words | None = None) -> None:
    """A policy as bars for each block and unit, its costs, losses and provenance; `said` are the words of its task."""
    kinds = list(dict.fromkeys(unit.kind for unit in found.units))
    kept = what_is_kept((unit.as_level for unit in found.units), kinds)
    print_table(f"{kept} of every unit", ["block", *kinds], _bars(found.units, kinds))
    print_costs(found.costs, found.called)
    print_validation(found, said)
    if refitted := told(found, said):
        console().print(f"{'refit':>10}  {refitted}", soft_wrap=True)
    for key, value in found.provenance.items():
        text = (
            ", ".join(
                _said(k, v, said) if key == "spent" else f"{k} {v}" for k, v in value.items() if k != "training" or v
            )
            if isinstance(value, dict)
            else value
        )
        text = live.shown(text) if isinstance(text, str) else text
        console().print(f"{key.replace('_', ' '):>10}  {text}", soft_wrap=True)


def _said(key: str, value: Any, said: Words | None) -> str:
    """`torch 2.13.0`, and of what a search took `59,904 tokens` and `9.3 seconds`, in the words of its task."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{key} {value}"
    items = "tokens" if said is None else said.items
    thing = {"evals": "evaluations", "tokens": items, "training": f"{items} of training"}.get(key, key)
    return f"{value:,.1f} {thing}" if isinstance(value, float) else f"{value:,} {thing}"


def _bars(units: Sequence[UnitPolicy], kinds: Sequence[str]) -> list[list[str]]:
    """A row of bars for each block; units of a kind stand side by side where there is room, else below each other."""
    rows: list[list[str]] = []
    for length, between in itertools.product(BARS, (" ", "\n")):
        cells: dict[int, dict[str, list[str]]] = {}
        for unit in units:
            cells.setdefault(unit.block, {}).setdefault(unit.kind, []).append(bar(unit, length))
        rows = [[str(b), *(between.join(row.get(kind, ())) for kind in kinds)] for b, row in sorted(cells.items())]
        if fitted(["block", *kinds], rows, console().width):
            break
    return rows


def print_validation(found: Policy, said: Words | None = None) -> None:
    """Print what the search measured on the validation split."""
    rows = found.losses.get("validation", {})
    loss = found.provenance.get("loss")
    heads = {"loss": f"loss ({live.shown(loss)})" if isinstance(loss, str) else "loss"}
    _print_rows("Validation split, before any fine-tuning", rows, said, heads, ["loss"])


def print_costs(costs: Mapping[str, Cost], name: str = BEST) -> None:
    """Print what a policy costs in every metric; params and macs of the whole network, and of what can be pruned.

    Args:
        costs: of a policy file.
        name: what the policy is called, as in the table of what was measured.
    """
    rows = [
        [line.name, *_kept(line.dense, line.policy, line.measure), _budget(line.bound, line.measure)]
        for line in cost_lines(costs)
    ]
    print_table("Costs", ["metric", "dense", name, "kept", "at most"], rows)


def _print_rows(
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    said: Words | None,
    heads: Mapping[str, str] = MappingProxyType({}),
    at_least: Sequence[str] = (),
) -> None:
    """Named networks and whatever was measured of them; `heads` has names of columns that no task knows."""
    keys = list(dict.fromkeys([*at_least, *(key for row in rows.values() for key in row)]))
    known = {key: measure(key, said) for key in keys}
    cells = [
        [name, *(known[key].written(row[key]) if key in row else "" for key in keys)] for name, row in rows.items()
    ]
    print_table(title, ["", *(heads.get(key, known[key].name) for key in keys)], cells)


def print_finetuned(done: Finetuned, said: Words | None = None) -> None:
    """Print the measurements of fine-tuning: dense, before and after. `said` are the words of the run's task."""
    _print_rows("Recovery, validation split (found: before the refit)", done.rows, said)
    took = None if done.seconds is None else f"It took {duration(done.seconds)}."
    ahead = None if said is None else forecast_told(done.law, said)
    told = " ".join(filter(None, (won_back(done, said), ahead, took)))
    if told:
        console().print(told, soft_wrap=True)


def bar(unit: UnitPolicy, length: int = BARS[0]) -> str:
    """`██████······  50 %  3/6`."""
    full = round(unit.density * length)
    room = len(f"{unit.groups:,}") + 6
    return f"{'█' * full}{'·' * (length - full)} {unit.density:4.0%} {left(unit.as_level, unit.groups):>{room}}"


def _kept(dense: float, policy: float, measure: str | None) -> list[str]:
    return [amount(dense, measure), amount(policy, measure), f"{policy / dense if dense else 0.0:.1%}"]


def _speed(row: Mapping[str, Any]) -> str:
    """The median, and how far half of the readings lie from it."""
    return f"{row['tokens_per_second']:,.0f} ± {row['speed_spread']:.0%}"


def _budget(bound: float | None, measure: str | None) -> str:
    return "" if bound is None else amount(bound, measure)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{round(value, 4) + 0.0:.4f}"  # no -0.0000
