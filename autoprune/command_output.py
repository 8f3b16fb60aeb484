"""The output of commands: progress, the message after Ctrl-C, and results as tables or as JSON."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from autoprune.terminal import echo

if TYPE_CHECKING:
    from autoprune.comparing.comparison import Comparison
    from autoprune.result import SearchResult


@contextlib.contextmanager
def progress(as_json: bool) -> Iterator[Any]:
    """Show progress on stderr. With --json, what libraries print goes to stderr too."""
    from autoprune.progress import Display

    with Display() as display, contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield display


@contextlib.contextmanager
def searching(path: Path, as_json: bool) -> Iterator[Any]:
    """As `progress`; explain Ctrl-C."""
    try:
        with progress(as_json) as display:
            yield display
    except KeyboardInterrupt:
        begun = (path / "config.yaml").exists()
        way_on = f"nothing is lost, `autoprune resume {path}` goes on." if begun else "the run had not begun."
        echo(f"autoprune: interrupted: {way_on}", err=True)
        raise typer.Exit(130) from None


def tell_result(result: "SearchResult", as_json: bool) -> None:
    """Print what a search found, as tables or as one JSON object."""
    path = result.path / "policy.json"
    table = [row.record() for row in result.table]
    if as_json:
        dumped = result.policy.model_dump()
        record = {"policy": str(path), "run": str(result.path), "loss": result.loss, "table": table}
        record |= {"front": [row.record() for row in result.front]}
        record |= {"losses": dumped["losses"], "costs": dumped["costs"], "spent": vars(result.spent)}
        from autoprune.space_file import coverage_of

        emit(record | {"coverage": coverage_of(result.path), "interrupted": result.interrupted})
        return
    from autoprune import display

    loss, said = result.assembly.config.loss, result.assembly.space.words
    display.print_results("Validation split; parameters and MACs are of the whole network", table, loss, said)
    if result.front:
        display.print_results("Pareto front", [row.record() for row in result.front], loss, said)
    display.print_costs(result.policy.costs)
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
