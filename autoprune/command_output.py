"""The output of commands: progress, the message after Ctrl-C, and results as tables or as JSON."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from autoprune.shell.volume import VOLUME
from autoprune.terminal import echo

if TYPE_CHECKING:
    from autoprune.callbacks import Callback
    from autoprune.comparing.comparison import Comparison
    from autoprune.progress import Display
    from autoprune.result import SearchResult


@contextlib.contextmanager
def progress(as_json: bool) -> Iterator[Any]:
    """Show progress on stderr. With --json, what libraries print goes to stderr too."""
    from autoprune.progress import Display, Silent

    shown = Silent() if VOLUME.quiet else Display()
    with shown as display, contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield display


@contextlib.contextmanager
def searching(path: Path, as_json: bool, kind: Literal["search", "comparison", "known"] = "search") -> Iterator[Any]:
    """As `progress`; explain Ctrl-C. Unless the directory is known to the user, it is named when the run begins."""
    try:
        with progress(as_json) as display:
            display.named, display.run = kind == "known", path if kind == "comparison" else None
            yield _logged(display)
    except KeyboardInterrupt:
        begun = (path / "config.yaml").exists()
        way_on = f"nothing is lost, `autoprune resume {path}` goes on." if begun else "the run had not begun."
        echo(f"autoprune: interrupted: {way_on}", err=True)
        raise typer.Exit(130) from None


def _logged(display: "Display") -> "Callback":
    """The display and the standard log, of which `--verbose` shows everything."""
    if not VOLUME.verbose:
        return display
    from autoprune.callbacks import Callbacks
    from autoprune.logs import Log

    return Callbacks(ours=[Log(), display])


def tell_result(result: "SearchResult", as_json: bool) -> None:
    """Print what a search found, as tables or as one JSON object."""
    from autoprune.verdict import not_below_uniform

    path = result.path / "policy.json"
    table, refit = [row.record() for row in result.table], result.policy.refit
    found = None if refit is None else refit.found.get("loss")
    if as_json:
        dumped = result.policy.model_dump()
        record = {"policy": str(path), "run": str(result.path), "loss": result.loss, "table": table}
        record |= {"front": [row.record() for row in result.front]}
        record |= {
            "losses": dumped["losses"],
            "costs": dumped["costs"],
            "spent": vars(result.spent),
            "refit": dumped["refit"],
        }
        from autoprune.space_file import coverage_of

        record |= {"note": not_below_uniform(table, result.assembly.config, found)}
        emit(record | {"coverage": coverage_of(result.path), "interrupted": result.interrupted})
        return
    from autoprune import display
    from autoprune.picture import print_picture
    from autoprune.refit_text import told

    loss, said, costs = result.assembly.config.loss, result.assembly.space.words, result.policy.costs
    display.print_results("Validation split; parameters and MACs are of the whole network", table, loss, said, costs)
    if result.front:
        display.print_results("Pareto front", [row.record() for row in result.front], loss, said, costs)
    if refitted := told(result.policy, said):
        echo(f"refit:   {refitted}")
    display.print_costs(costs)
    print_picture(result.policy)
    remark = not_below_uniform(table, result.assembly.config, found)
    if remark:
        echo(f"note:    {remark}")
    echo(f"policy:  {path}")
    if result.interrupted:
        echo(f"go on:   autoprune resume {result.path}")
    echo(f"export:  autoprune export {result.path} {result.path / 'export'}")


def tell_comparison(compared: "Comparison", as_json: bool) -> None:
    """Print how agents compare, as a table or as one JSON object."""
    if as_json:
        emit(compared.league)
        return
    from autoprune import display

    display.print_comparison(compared.league)
    echo(f"league:  {compared.path / 'league.json'}")


def emit(record: Any) -> None:
    """Print one JSON object."""
    from autoprune.policy import to_json

    echo(to_json(record))
