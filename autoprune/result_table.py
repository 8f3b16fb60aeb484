"""What the text and the HTML of a result have in common: the cells of their table, and what is kept by layer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoprune import live
from autoprune.cost_lines import Budget, bound_cells, budgets_in, other_budgets
from autoprune.drawing.tables import amount, loss
from autoprune.level import Level
from autoprune.space import Unit
from autoprune.wording import Words, count

if TYPE_CHECKING:
    from autoprune.result import SearchResult


HEADLINE = 66  # characters that it may have on a line of 80, of which the text has others
SHORTEST, LONGEST = 8, 20  # characters of a name in the headline


def columns(result: "SearchResult") -> list[str]:
    """Heads of the table."""
    said = result.space.words
    others = [one.column for one in other_budgets(result.policy.costs)]
    heads = ["", f"loss ({loss_name(result)})", said.quality.name, "parameters", f"MACs/{said.item}"]
    return [*heads, *others, f"{said.items}/s"]


def rows(result: "SearchResult") -> list[list[str]]:
    """Dense, uniform and best, and the bounds of the budgets."""
    others, bounds = other_budgets(result.policy.costs), bound_cells(result.policy.costs)
    told = [_cells(row.record(), result.space.words, others) for row in result.table]
    return [*told, ["at most", "", "", *bounds, ""]] if bounds else told


def headline(result: "SearchResult") -> str:
    """Who searched, and what that took."""
    spent, said = result.spent, result.space.words
    agent, model = (live.shown(str(result.policy.provenance.get(key))) for key in ("agent", "model"))
    ended = ", interrupted" if result.interrupted else ""
    took = f": {count(spent.evals, 'evaluation')}, {spent.tokens:,} {said.items}, {spent.seconds:.1f} s{ended}"
    by = f" by {_last(agent)}{took}"
    room = max(SHORTEST, min(LONGEST, HEADLINE - len(by)))  # numbers are never cut
    return f"{'embedded model' if model == 'embedded' else _last(model, room)}{by}"


def budgets(result: "SearchResult") -> list[str]:
    """What was asked for, and what it is of."""
    return [one.told for one in budgets_in(result.policy.costs)]


def units(result: "SearchResult") -> dict[str, list[tuple[Unit, Level, Level]]]:
    """Kind -> its units from the first block to the last, with the level that each has and its uniform one."""
    found: dict[str, list[tuple[Unit, Level, Level]]] = {}
    uniform = result.space.levels_of(result.space.uniform())
    for unit, policy, even in zip(result.space.units, result.policy.units, uniform, strict=True):
        found.setdefault(unit.kind, []).append((unit, policy.as_level, even))
    return found


def mean(shares: Sequence[float]) -> float:
    """Of shares, of which there is at least one."""
    return sum(shares) / len(shares)


def loss_name(result: "SearchResult") -> str:
    """The name of the loss that was searched."""
    return live.shown(str(result.policy.provenance.get("loss")))


def _last(name: str, most: int = LONGEST) -> str:
    """The end of a path, which tells most; a short name as it is."""
    return name if len(name) <= most else f"…{name[-most + 1 :]}"


def _cells(row: Mapping[str, Any], said: Words, others: Sequence[Budget]) -> list[str]:
    return [
        row["name"],
        loss(row["validation_loss"]),
        said.quality.written(row.get(said.quality.key)),
        amount(row["params"]),
        amount(row["macs"]),
        *(one.cell(row["costs"].get(one.metric)) for one in others),
        f"{row['tokens_per_second']:,.0f}",
    ]
