"""Commands that look at runs and parts, and change nothing: show, list, report, dashboard, watch."""

from pathlib import Path
from typing import Annotated

import typer

from autoprune.command_output import emit
from autoprune.errors import UserError
from autoprune.shell import completion
from autoprune.shell.arguments import Json, Run
from autoprune.shell.root import app
from autoprune.terminal import echo


@app.command()
def show(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Directory of a run, or a policy file.", autocompletion=completion.runs),
    ],
    as_json: Json = False,
) -> None:
    """Show the policy: bars for every layer and unit, costs, losses, fine-tuning, and where it came from."""
    from autoprune import display, rundir
    from autoprune.policy import Policy
    from autoprune.recovery.result import of_earlier_policy, read_finetuned
    from autoprune.space_file import words_of_run

    policy = Policy.load(run if run.is_file() else rundir.policy_path(run))
    if as_json:
        emit(policy.model_dump(by_alias=True))
        return
    said = words_of_run(run if run.is_dir() else run.parent)
    display.print_policy(policy, said)
    try:
        done = read_finetuned(run)
    except UserError as error:
        echo(f"fine-tuning: {error}")
        return
    if done is not None:
        display.print_finetuned(done, said)
        if earlier := of_earlier_policy(run, policy):
            echo(earlier)


@app.command(name="list")
def list_parts(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="Agents, forms, budgets (the metrics), criteria, exporters, ...; the default is all kinds.",
            autocompletion=completion.kinds,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the parts that can be chosen by name."""
    import textwrap

    from autoprune import listing
    from autoprune.display import console

    parts = listing.describe(kind)
    if as_json:
        emit(parts)
        return
    room = console().width
    for kind_name, described in parts.items():
        echo(f"{kind_name}:")
        width = max(map(len, described), default=0)
        for name, line in described.items():
            echo(textwrap.fill(
                line, room, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * (width + 4),
                break_long_words=False, break_on_hyphens=False,
            ))  # fmt: skip
        if not described:
            echo("  none is registered")


@app.command()
def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Directory of a run or of a comparison.", autocompletion=completion.runs),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write; the default is report.html in the directory.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page about a run or a comparison, finished or not. The page needs no network and no server."""
    from autoprune.reports.page import write_report

    path = write_report(run, out)
    if as_json:
        emit({"path": str(path), "run": str(run)})
    else:
        echo(f"report:  {path}")


@app.command()
def dashboard(
    run: Run,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
) -> None:
    """Serve optuna-dashboard on a run's study, until Ctrl-C."""
    from autoprune.records.dashboard import serve

    serve(run, host, port, lambda url: echo(f"dashboard of {run}: {url} (Ctrl-C ends it)"))


@app.command()
def watch(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Directory of a run, of a comparison, or of several of them.")
    ] = Path("runs"),
    control: Annotated[
        bool, typer.Option("--control", help="Let the page stop and resume, and change limits.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8090,
) -> None:
    """Serve a live page of searches until Ctrl-C: curves, what is kept of every unit, limits and budgets."""
    from autoprune.watching.server import serve

    serve(run, host, port, control, lambda url: echo(f"watching {run}: {url} (Ctrl-C ends it)"))
