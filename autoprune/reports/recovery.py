"""What recovery gave: dense, uniform, found, refitted, recovered; and what more tokens would buy."""

from collections.abc import Mapping

from autoprune.drawing.markup import Markup, tag
from autoprune.drawing.tables import duration, note, section, table
from autoprune.fine_tuned import Finetuned, forecast_told
from autoprune.recovery.result import of_earlier_policy, won_back
from autoprune.reports.record import Run
from autoprune.task_choice import measure
from autoprune.wording import Words


def fine_tuning(run: Run) -> Markup | None:
    """The numbers before and after, and the settings; a sentence where the file is damaged, nothing without one."""
    done = run.finetuned
    if done is None:
        return None
    if isinstance(done, str):
        return section("Fine-tuning", tag("p", f"Nothing can be shown: {done}", class_="warning"))
    took = "" if done.seconds is None else f" It took {duration(done.seconds)}."
    gain = _spaced(won_back(done, run.words) or "")
    earlier = "" if run.policy is None else of_earlier_policy(run.path, run.policy) or ""
    ahead = _spaced(forecast_told(done.law, run.words) or "")
    rows = "The row found is the network before its refit, and recovered is the one that is handed over."
    said = f"Measured on the validation split, on which it was not trained. {rows}{took} {gain} {ahead} {earlier}"
    columns = ("", *(measure(key, run.words).name for key in done.keys))
    return section(
        "Fine-tuning", note(said.strip()), table("Fine-tuning", columns, _rows(done, run.words)), _settings(done)
    )


def _rows(done: Finetuned, words: Words) -> list[list[str]]:
    return [[name, *(_cell(row, key, words) for key in done.keys)] for name, row in done.rows.items()]


def _cell(row: Mapping[str, float | None], key: str, words: Words) -> str:
    return _spaced(measure(key, words).written(row[key])) if key in row else "–"


def _spaced(told: str) -> str:
    """Percentages as the page writes them."""
    return told.replace("%", "\N{NO-BREAK SPACE}%")


def _settings(done: Finetuned) -> Markup:
    spoken = {True: "yes", False: "no"}
    told = ", ".join(f"{k} {spoken[v] if isinstance(v, bool) else v}" for k, v in done.tuning.items() if v is not None)
    return tag("p", f"Settings: {told}.", class_="note after") if told else Markup("")
