"""Prints tables and bars on stdout.

It imports neither torch nor transformers, so that `autoprune show` answers at once.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from autoprune.console import CleanConsole
from autoprune.level import form_of
from autoprune.policy import Cost, Policy, UnitPolicy
from autoprune.recovery.result import Finetuned, won_back
from autoprune.task_choice import measure, words_of
from autoprune.wording import OF_UNITS, Words, duration, groups

BAR = 16  # characters of one unit's bar
WIDTH = 100  # of tables where stdout is no terminal


def number(value: float) -> str:
    """`22.6M`, `1.2k`, `0.5`: three digits and a scale."""
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a table on stdout: the first columns left, the others right."""
    drawn = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        drawn.add_column(column, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    console().print(drawn)


def console() -> Console:
    """The console on the present stdout. It is wide enough for a table where stdout is not a terminal."""
    stdout = CleanConsole(highlight=False, markup=False)
    return stdout if stdout.is_terminal else CleanConsole(highlight=False, markup=False, width=WIDTH)


def print_results(title: str, rows: Sequence[Mapping[str, Any]], loss: str, said: Words) -> None:
    """Policies measured on the validation split: dense, uniform, best found; or a front. `said`: the task's words."""
    print_table(
        title,
        ["", f"loss ({loss})", said.quality.name, "parameters", f"MACs/{said.item}", f"{said.items}/s"],
        [
            [
                row["name"],
                _loss(row["validation_loss"]),
                said.quality.written(row[said.quality.key]),
                number(row["params"]),
                number(row["macs"]),
                _speed(row),
            ]
            for row in rows
        ],
    )


def print_comparison(results: Mapping[str, Any]) -> None:
    """Print the agents by their mean validation loss, the reference policies below them, and the failed searches."""
    rows = [_standing(row) for row in results["table"]]
    ranked = {row["agent"] for row in results["table"]}
    others = {name: one for name, one in results["references"].items() if name not in ranked}
    rows += [["", name, "", _loss(one["loss"])] for name, one in others.items()]
    columns = [
        "",
        "agent",
        "seeds",
        f"loss ({results['config']['loss']})",
        "best seed",
        "worst seed",
        "behind the first",
    ]
    said = words_of(results)
    if said.quality.averages:
        columns.insert(4, said.quality.name)
        for row, one in zip(rows, [*results["table"], *others.values()], strict=True):
            row[4:4] = [said.quality.written(one[said.quality.key])] if said.quality.key in one else []
    print_table("Validation split, mean ± standard deviation over seeds", columns, rows, left=2)
    spent = [_spent(row) for row in results["table"] if row["seeds"]]
    print_table("Searches, means over seeds", ["", "search loss", said.items, "evaluations", "seconds"], spent)
    for one in results["searches"]:
        if "failed" in one:
            console().print(f"{one['agent']} seed {one['seed']} failed: {one['failed']}", soft_wrap=True)


def _standing(row: Mapping[str, Any]) -> list[str]:
    """A row of the table; empty but for the name where no search has an answer."""
    if not row["seeds"]:
        return ["", row["agent"], f"0/{row['failed']}"]
    seeds = f"{row['seeds']}/{row['seeds'] + row['failed']}" if row["failed"] else str(row["seeds"])
    ends = [f"{row[end]['seed']}: {_loss(row[end]['loss'])}" for end in ("best", "worst")]
    behind = "" if row["behind"] is None else f"+{_plus_minus(row['behind'], row['behind_error'])}"
    return [str(row["rank"]), row["agent"], seeds, _plus_minus(row["loss"], row["sd"]), *ends, behind]


def _spent(row: Mapping[str, Any]) -> list[str]:
    spent = [f"{row[key]:,.0f}" for key in ("tokens", "evals")]
    return [row["agent"], _loss(row["search_loss"]), *spent, f"{row['seconds']:.1f}"]


def _plus_minus(value: float, spread: float | None) -> str:
    return _loss(value) if spread is None else f"{_loss(value)} ± {_loss(spread)}"


def print_policy(found: Policy, said: Words | None = None) -> None:
    """A policy as bars for each block and unit, its costs, losses and provenance; `said` are the words of its task."""
    kinds = list(dict.fromkeys(unit.kind for unit in found.units))
    blocks = sorted({unit.block for unit in found.units})
    units = {(unit.block, kind): "" for unit in found.units for kind in kinds}
    for unit in found.units:
        units[unit.block, unit.kind] = f"{units[unit.block, unit.kind]} {bar(unit)}".strip()
    print_table(
        f"{groups(kinds).capitalize()} kept of every unit",
        ["block", *kinds],
        [[str(b), *(units[b, kind] for kind in kinds)] for b in blocks],
    )
    print_costs(found.costs)
    print_validation(found, said)
    for key, value in found.provenance.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        console().print(f"{key:>10}  {text}", soft_wrap=True)


def print_validation(found: Policy, said: Words | None = None) -> None:
    """Print what the search measured on the validation split."""
    rows = found.losses.get("validation", {})
    loss = found.provenance.get("loss")
    heads = {"loss": f"loss ({loss})" if isinstance(loss, str) else "loss"}
    _print_rows("Validation split, before any fine-tuning", rows, said, heads, ["loss"])


def print_costs(costs: Mapping[str, Cost]) -> None:
    """Print what a policy costs in every metric; params and macs also for the whole network."""
    rows = []
    for metric, cost in costs.items():
        if cost.network is not None:
            rows.append([f"{metric}, whole network", *_kept(cost.network.dense, cost.network.policy), ""])
        label = f"{metric}, what can be pruned" if metric in OF_UNITS else metric
        rows.append([label, *_kept(cost.dense, cost.policy), _budget(cost.budget)])
    print_table(
        "Costs; a budget on params or macs bounds what can be pruned",
        ["metric", "dense", "policy", "kept", "budget"],
        rows,
    )


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
    _print_rows("Fine-tuning, validation", done.rows, said)
    took = None if done.seconds is None else f"It took {duration(done.seconds)}."
    told = " ".join(filter(None, (won_back(done, said), took)))
    if told:
        console().print(told, soft_wrap=True)


def bar(unit: UnitPolicy) -> str:
    """`██████······  50 %  3/6`."""
    full = round(unit.density * BAR)
    left = form_of(unit.as_level).short(unit.as_level)
    return f"{'█' * full}{'·' * (BAR - full)} {unit.density:4.0%} {left:>5}/{unit.groups:,}"


def _kept(dense: float, policy: float) -> list[str]:
    return [number(dense), number(policy), f"{policy / dense if dense else 0.0:.1%}"]


def _speed(row: Mapping[str, Any]) -> str:
    """The median, and how far half of the readings lie from it."""
    return f"{row['tokens_per_second']:,.0f} ± {row['speed_spread']:.0%}"


def _budget(bound: float | None) -> str:
    return "" if bound is None else number(bound)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{round(value, 4) + 0.0:.4f}"  # no -0.0000
