"""The head of a report: what was searched, whether it is finished, and what it came to."""

from autoprune import live
from autoprune.cost_lines import Budget, bound_cells, budgets_asked, budgets_in, other_budgets
from autoprune.cost_lines import amount as measured
from autoprune.drawing.markup import Markup, tag
from autoprune.drawing.tables import (
    amount,
    change,
    count,
    duration,
    facts,
    loss,
    note,
    percent,
    quality,
    section,
    table,
)  # fmt: skip
from autoprune.recovery.result import Finetuned
from autoprune.refit_text import told
from autoprune.reports.record import Row, Run
from autoprune.verdict import not_below_uniform
from autoprune.wording import OF_UNITS

OF = {"prunable": " that can be pruned", "model": " in the whole network"}
SLACK = 1e-9  # of the bound: sums of floats may miss it by rounding


def head(run: Run) -> Markup:
    """Title, status and headline facts."""
    bounds = budgets_asked(run.config.budgets, run.config.of)
    return tag(
        "header",
        tag("p", "autoprune report", class_="kicker"),
        tag("h1", run.subject),
        tag(
            "p",
            f"{live.shown(run.config.agent)}, seed {run.config.seed}, {bounds}. Run ",
            tag("code", run.path),
            class_="lead",
        ),
        _status(run),
        tag("p", run.coverage.replace("%", "\N{NO-BREAK SPACE}%"), class_="note") if run.coverage else None,
        facts([*_results(run), *_budgets(run), _spent(run)]),
    )


def validation(run: Run) -> Markup | None:
    """Dense, uniform and best as a table; nothing while unfinished."""
    if run.result is None:
        return None
    said = run.words
    kind = f"loss ({live.shown(run.config.loss)})"
    own = [one.column for one in _others(run)]
    names = [one.name for one in said.measures]
    columns = ("", kind, *names, "parameters", f"MACs/{said.item}", *own, f"{said.items}/s")
    return section(
        "Validation",
        note(
            f"Measured on {said.data} that the search has not seen. The loss is in {run.unit_of_loss}. Parameters and "
            f"MACs are {_of_what(run)}."
        ),
        table("Validation", columns, [*(_cells(run, row) for row in run.result.table), *_bounds(run)]),
        note(refit) if run.policy is not None and (refit := told(run.policy, said)) else None,
        *(note(f"Budget: {one.told}") for one in _shown(run)),
        note(remark) if (remark := not_below_uniform(_records(run), run.config, _found(run))) else None,
    )


def _shown(run: Run) -> list[Budget]:
    """The budgets of a finished run whose table says what its numbers are of."""
    measured_now = run.result is not None and any(row.speed_spread is not None for row in run.result.table)
    return budgets_in(run.policy.costs) if run.policy is not None and measured_now else []


def _others(run: Run) -> list[Budget]:
    """The budgets that need a column of their own."""
    return other_budgets(run.policy.costs) if run.policy is not None and _shown(run) else []


def _bounds(run: Run) -> list[list[str]]:
    """The last row of the table: the bounds."""
    bounds = bound_cells(run.policy.costs) if run.policy is not None and _shown(run) else []
    if not bounds:
        return []
    return [["at most", "", *("" for _ in run.words.measures), *bounds, ""]]


def _found(run: Run) -> float | None:
    """The loss of the best policy without its refit; None where it has none."""
    return run.policy.refit.found.get("loss") if run.policy is not None and run.policy.refit is not None else None


def _records(run: Run) -> list[dict[str, object]]:
    return [row.model_dump() for row in run.result.table] if run.result else []


def _cells(run: Run, row: Row) -> list[str]:
    return [
        row.name,
        loss(row.validation_loss),
        *(loss(row.measured.get(one.key)) for one in run.words.measures if one != run.words.quality),
        quality(run.words, row.measured, 2),
        amount(row.params),
        amount(row.macs),
        *(one.cell(row.costs.get(one.metric)) for one in _others(run)),
        _speed(row),
    ]


def _status(run: Run) -> Markup | None:
    if run.policy is not None:
        return None
    found = "No policy within the budgets has been scored yet."
    if run.best is not None:
        found = "What follows is of the best policy so far, by its loss on the search split; nothing is validated."
    return tag(
        "p",
        tag("strong", "This run is not finished. "),
        f"It is still at work, or was killed. {found} ",
        tag("code", f"autoprune resume {run.path}"),
        " goes on with it.",
        class_="warning",
    )


def _results(run: Run) -> list[tuple[str, str, str]]:
    """The best policy beside uniform and dense, where these were measured."""
    best, uniform, dense = (run.row(name) for name in ("best", "uniform", "dense"))
    if best is None:
        if run.best is None:
            return []
        sample = f"{run.unit_of_loss}, on {count(run.best.sequences, run.words.sample)} of the search split"
        return [(f"Loss ({live.shown(run.config.loss)}) so far", loss(run.best.loss), sample)]
    u, d = uniform or _nothing("uniform"), dense or _nothing("dense")
    against, said = change(best.validation_loss, u.validation_loss), run.words
    known = [quality(said, row.measured) for row in (best, u, d)]
    even = f"{loss(u.validation_loss)} ({against})" if against else loss(u.validation_loss)
    return [
        (
            f"Loss ({live.shown(run.config.loss)}), validation",
            loss(best.validation_loss),
            f"uniform {even}, dense {loss(d.validation_loss)}",
        ),
        (_capitalised(said.quality.name), known[0], f"uniform {known[1]}, dense {known[2]}"),
        *_finetuned(run),
        ("Parameters", amount(best.params), f"{percent(best.params or 0, d.params or 0)} of {amount(d.params)}"),
        (
            f"MACs per {said.item}",
            amount(best.macs),
            f"{percent(best.macs or 0, d.macs or 0)} of {amount(d.macs)}",
        ),
        (
            f"{said.items.capitalize()} per second",
            _speed(best),
            f"dense {_speed(d)}, on the search’s machine",
        ),
    ]


def _finetuned(run: Run) -> list[tuple[str, str, str]]:
    """The measurements after fine-tuning."""
    done, known = run.finetuned, run.words.quality
    if not isinstance(done, Finetuned) or known.key not in done.after:
        return []
    told = {name: quality(run.words, row) for name, row in done.rows.items()}
    return [
        (f"{_capitalised(known.name)}, fine-tuned", told["recovered"], f"found {told['found']}, dense {told['dense']}")
    ]


def _budgets(run: Run) -> list[tuple[str, str, str]]:
    """For each budget what of it is used, and whether it holds."""
    if run.best is None:
        return []
    rows = []
    for metric, bound in run.space.budgets.items():
        used, dense = run.used(metric, run.best.keys), run.space.cost(run.space.dense, metric)
        met = "met" if used <= bound + SLACK * dense else "not met"
        what = OF[run.config.of] if metric in OF_UNITS else ""
        told = f"{met}; at most {percent(bound, dense)} of {_amount(run, metric, dense)}{what}"
        rows.append((f"Budget: {live.shown(metric)}", percent(used, dense), told))
    return rows


def _spent(run: Run) -> tuple[str, str, str]:
    spent = run.spent
    told = f"{count(spent.evals, 'evaluation')}, {amount(spent.tokens)} {run.words.items}"
    if spent.training:
        told += f", {percent(spent.training, spent.tokens)} of them for training candidates"
    return "Spent on the search", duration(spent.seconds), told


def _amount(run: Run, metric: str, value: float) -> str:
    """A number of a metric, with its unit of measurement where the policy says it."""
    cost = run.policy.costs.get(metric) if run.policy else None
    return amount(value) if cost is None or cost.measure is None else measured(value, cost.measure)


def _nothing(name: str) -> Row:
    return Row(
        name=name, validation_loss=None, params=None, macs=None, tokens_per_second=None,
    )  # fmt: skip


def _capitalised(name: str) -> str:
    return f"{name[0].upper()}{name[1:]}"


def _of_what(run: Run) -> str:
    if run.result and all(row.speed_spread is None for row in run.result.table):  # an older run
        return "those of the whole network and those of what can be pruned"
    if run.config.of == "model":
        return "of the whole network, and so is a budget on them"
    return "of the whole network; a budget bounds what of it can be pruned"


def _speed(row: Row) -> str:
    if row.tokens_per_second is None:
        return "–"
    spread = "" if row.speed_spread is None else f" ± {row.speed_spread:.0%}"
    return f"{row.tokens_per_second:,.0f}{spread}"
