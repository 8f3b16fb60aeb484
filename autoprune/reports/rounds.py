"""The rounds of a run: the budgets, what searches found, and what training made of it."""

from autoprune.drawing.markup import Markup
from autoprune.drawing.tables import note, percent, section, table
from autoprune.reports.record import Run
from autoprune.task_choice import measure


def rounds(run: Run) -> Markup | None:
    """A table with a row for each round before the last; nothing for a run of one round."""
    if run.rounds is None:
        return None
    known, words = run.rounds, run.words
    keys = list(known.done[0].found) if known.done else []
    named = [measure(key, words) for key in keys]
    metrics = list(known.plan.shares)
    columns = ["", *metrics, f"{words.items} of search", f"{words.items} of training"]
    columns += [f"{one.name}, {what}" for one in named for what in ("found", "trained")]
    rows = []
    for one in known.done:
        row = [f"round {one.number}", *(percent(one.shares[metric], 1) for metric in metrics)]
        row += [f"{one.search.tokens:,}", f"{one.trained:,}"]
        for key, shown in zip(keys, named, strict=True):
            row += [shown.written(one.found[key]), shown.written(one.recovered[key])]
        rows.append(row)
    said = (
        f"The policy was found in {known.plan.rounds} rounds; everything else on this page is of the last one. Budgets "
        "are shares of the original dense network. All losses are against the original dense network, which also "
        f"taught the trained networks. A training counts as {known.plan.charged} {words.items} of search for each of "
        f"its {words.items}; what the run has spent includes all rounds."
    )
    return section("Rounds", note(said), table("Rounds", columns, rows))
