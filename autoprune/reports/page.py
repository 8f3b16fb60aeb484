"""The page: one HTML file without scripts and without anything from elsewhere, the same bytes for the same run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune import live
from autoprune.comparing.results import FILE as COMPARISON
from autoprune.comparing.results import load_results
from autoprune.drawing.markup import Markup, join, tag
from autoprune.drawing.style import STYLE
from autoprune.errors import UserError
from autoprune.files.reading import explained
from autoprune.files.writing import write_atomically
from autoprune.reports import comparison, origin, overview, recovery, rounds, searching, units
from autoprune.reports.record import Run
from autoprune.reports.run import read_run
from autoprune.reports.sensitivities import sensitivities

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load: nothing."""


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run or of a comparison, finished or not.

    Args:
        run: its directory.
        out: the file; None is `report.html` in it.

    Returns:
        The file.

    Raises:
        UserError: there is no run, it is of a version without `space.json`, a file of it is damaged, or the disk is
            full or not writable.
    """
    out = out or run / "report.html"
    if (run / COMPARISON).is_file():
        page = render_comparison(run, load_results(run))
    else:
        with explained("the run", run):  # files that are sound one by one may not fit together
            page = render(read_run(run))
    if not out.parent.is_dir():
        raise UserError(f"the report cannot be written to '{out}': there is no folder '{out.parent}'.")
    write_atomically(out, page)
    return out


def render(run: Run) -> str:
    """The report as HTML."""
    main = tag(
        "main",
        overview.validation(run),
        recovery.fine_tuning(run),
        rounds.rounds(run),
        searching.curve(run),
        units.by_depth(run),
        searching.trade_off(run),
        sensitivities(run),
        units.costs(run),
        units.layers(run),
        origin.configuration(run),
        origin.provenance(run),
        origin.commands(run),
    )
    return document(f"{run.subject}, {live.shown(run.config.agent)}: autoprune report", join(overview.head(run), main))


def render_comparison(path: Path, results: Mapping[str, Any]) -> str:
    """The report of a comparison as HTML."""
    with explained("the results", path / COMPARISON, "`autoprune resume` writes it anew"):
        return document(f"{comparison.title(results)}: autoprune comparison", comparison.body(path, results))


def document(title: str, body: Markup) -> str:
    """A whole page around its body."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body), lang='en')}\n"
