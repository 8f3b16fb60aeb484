"""What a person sees: progress on stderr, tables and bars on stdout. Nothing here decides anything.

Imports neither torch nor transformers: `autoprune show` answers at once.
"""

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from autoprune.finetuned import Finetuned, named, won_back, written
from autoprune.policy import Cost, Policy, UnitPolicy
from autoprune.terminal import clean, echo
from autoprune.wording import OF_UNITS, groups, words

if TYPE_CHECKING:
    from autoprune.objective import Objective

BAR = 16  # characters of one unit's bar
LINE_EVERY = 0.1  # of the search, between two lines where stderr is no terminal
WIDTH = 100  # of tables where stdout is no terminal


class Clean(Console):
    """Whatever text it prints, in tables too, does not steer the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it."""
        return super().render_str(clean(text), **options)


class Display:
    """Progress of one command on stderr: a live bar on a terminal, a few lines elsewhere.

    `stage` and `score` are the two hooks of `study.Watch`.
    """

    def __init__(self) -> None:
        console = Clean(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(30),
            TextColumn("{task.fields[details]}", markup=False),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=1.0, details="", visible=False)
        self._stage, self._next_line = "", 0.0
        self._since, self._tokens_before = 0.0, 0

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._bar.disable:  # else it would print an empty line
            self._bar.stop()

    def stage(self, name: str, share: float) -> None:
        """A stage of preparation or of the end, and how much of it is done."""
        self._show(name, share, "")

    def score(self, objective: "Objective") -> None:
        """The search after a batch of scores."""
        spent, first = objective.spent, self._stage != "searching"
        if first:
            self._since, self._tokens_before, self._next_line = time.monotonic(), spent.tokens, 0.0
        share = share_spent(objective)
        elapsed = time.monotonic() - self._since
        best = objective.history[-1][2]
        facts = [f"best loss {best:.4f}"] if math.isfinite(best) else []  # nothing but sensitivities so far
        facts.append(f"{spent.evals:,} scored")
        if elapsed > 0 and not first:
            rate = (spent.tokens - self._tokens_before) / elapsed
            facts.append(f"{rate:,.0f} {words(objective.space.task).items}/s")
        if share > 0:
            facts.append(f"{duration(spent.seconds * (1 - share) / share)} left")
        self._show("searching", share, ", ".join(facts))

    def ended(self, number: int, total: int, outcome: Mapping[str, Any]) -> None:
        """A search of a comparison, which stays to be seen."""
        if "failed" in outcome:
            told = f"failed: {outcome['failed']}"
        else:
            loss, spent = _loss(outcome["loss"]) or "overflowed", duration(outcome["seconds"])
            told = f"loss {loss}, {outcome['tokens']:,} {words(outcome.get('task')).items}, {spent}"
        self._line(f"search {number} of {total}: {outcome['agent']} seed {outcome['seed']}: {told}")

    def notice(self, text: str) -> None:
        """Something that went wrong and does not stop the search, which stays to be seen."""
        self._line(f"autoprune: {text}")

    def _line(self, line: str) -> None:
        if self._bar.disable:
            echo(line, err=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    def _show(self, name: str, share: float, details: str) -> None:
        changed, self._stage = name != self._stage, name
        if not self._bar.disable:
            total = 1.0 if share > 0 else None  # pulses where nothing is known
            self._bar.update(
                self._task, description=clean(name), completed=share, total=total, details=clean(details), visible=True
            )
        elif details and share >= self._next_line:
            self._next_line = min(1.0, share + LINE_EVERY)
            echo(f"{name}: {share:.0%}, {details}", err=True)
        elif changed and not details:
            echo(name, err=True)


def share_spent(objective: "Objective") -> float:
    """How much of the tightest limit is spent, time included, in [0, 1]."""
    seconds = objective.limits.seconds
    return min(1.0, max(objective.progress, objective.spent.seconds / seconds if seconds else 0.0))


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 10 s`, `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


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
    """stdout as it is now; wide enough for a table where it is no terminal."""
    stdout = Clean(highlight=False, markup=False)
    return stdout if stdout.is_terminal else Clean(highlight=False, markup=False, width=WIDTH)


def print_results(title: str, rows: Sequence[Mapping[str, Any]], loss: str, task: str) -> None:
    """Policies measured on the validation split: dense, uniform, best found; or a front."""
    said = words(task)
    print_table(
        title,
        ["", f"loss ({loss})", said.quality, "parameters", f"MACs/{said.item}", f"{said.items}/s"],
        [
            [
                row["name"],
                _loss(row["validation_loss"]),
                written(said.quality, row[said.quality]),
                number(row["params"]),
                number(row["macs"]),
                _speed(row),
            ]
            for row in rows
        ],
    )


def print_league(league: Mapping[str, Any]) -> None:
    """Agents ranked by their mean validation loss, the reference policies below them, and what failed."""
    rows = [_standing(row) for row in league["table"]]
    ranked = {row["agent"] for row in league["table"]}
    others = {name: one for name, one in league["references"].items() if name not in ranked}
    rows += [["", name, "", _loss(one["loss"])] for name, one in others.items()]
    columns = [
        "",
        "agent",
        "seeds",
        f"loss ({league['config']['loss']})",
        "best seed",
        "worst seed",
        "behind the first",
    ]
    if words(league.get("task")).quality == "accuracy":
        columns.insert(4, "accuracy")
        for row, one in zip(rows, [*league["table"], *others.values()], strict=True):
            row[4:4] = [written("accuracy", one["accuracy"])] if "accuracy" in one else []
    print_table("Validation split, mean ± standard deviation over seeds", columns, rows, left=2)
    spent = [_spent(row) for row in league["table"] if row["seeds"]]
    counted = words(league.get("task")).items
    print_table("Searches, means over seeds", ["", "search loss", counted, "evaluations", "seconds"], spent)
    for one in league["searches"]:
        if "failed" in one:
            console().print(f"{one['agent']} seed {one['seed']} failed: {one['failed']}", soft_wrap=True)


def _standing(row: Mapping[str, Any]) -> list[str]:
    """A row of the league; empty but for the name where no search has an answer."""
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


def print_policy(found: Policy) -> None:
    """A policy as bars for each block and unit, its costs, losses and provenance."""
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
    validation = found.losses.get("validation", {})
    print_measured("Validation losses", validation, ("loss", "ce"))
    for key, value in found.provenance.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        console().print(f"{key:>10}  {text}", soft_wrap=True)


def print_costs(costs: Mapping[str, Cost]) -> None:
    """What a policy costs in every metric: params and macs of the whole network, and of what can be pruned of it."""
    rows = []
    for metric, cost in costs.items():
        if cost.network is not None:
            rows.append([f"{metric}, whole network", *_kept(cost.network.dense, cost.network.policy), ""])
        label = f"{metric}, what can be pruned" if metric in OF_UNITS else metric
        rows.append([label, *_kept(cost.dense, cost.policy), _budget(cost.budget)])
    print_table(
        "Costs; a budget on params or macs bounds what can be pruned", ["", "dense", "policy", "kept", "budget"], rows
    )


def print_measured(title: str, rows: Mapping[str, Mapping[str, Any]], at_least: Sequence[str] = ()) -> None:
    """Named networks and whatever was measured of them: losses, accuracy, perplexity."""
    keys = list(dict.fromkeys([*at_least, *(key for row in rows.values() for key in row)]))
    cells = [[name, *(written(key, row[key]) if key in row else "" for key in keys)] for name, row in rows.items()]
    print_table(title, ["", *map(named, keys)], cells)


def print_finetuned(done: Finetuned) -> None:
    """What fine-tuning gave: dense, before and after."""
    print_measured("Fine-tuning, validation", done.rows)
    took = None if done.seconds is None else f"It took {duration(done.seconds)}."
    told = " ".join(filter(None, (won_back(done), took)))
    if told:
        console().print(told, soft_wrap=True)


def bar(unit: UnitPolicy) -> str:
    """`██████······  50 %  3/6`."""
    share = unit.kept / unit.groups
    full = round(share * BAR)
    return f"{'█' * full}{'·' * (BAR - full)} {share:4.0%} {unit.kept:>5}/{unit.groups}"


def _kept(dense: float, policy: float) -> list[str]:
    return [number(dense), number(policy), f"{policy / dense if dense else 0.0:.1%}"]


def _speed(row: Mapping[str, Any]) -> str:
    """The median, and how far half of the readings lie from it."""
    return f"{row['tokens_per_second']:,.0f} ± {row['speed_spread']:.0%}"


def _budget(bound: float | None) -> str:
    return "" if bound is None else number(bound)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{round(value, 4) + 0.0:.4f}"  # no -0.0000
