"""The command line. Each command calls the Python API; torch and transformers are imported when a command runs.

A user's mistake prints one line on stderr and exits with status 2. Ctrl-C outside the search exits with 130.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from autoprune.amounts import parse_count, parse_seconds
from autoprune.command_output import emit, progress, searching, tell_comparison, tell_result
from autoprune.options import OF_RESUME, SETTINGS, settings
from autoprune.shell import completion, looking
from autoprune.shell.arguments import Config, Json, Overrides, Run
from autoprune.shell.chosen import check_run, check_there, chosen_settings
from autoprune.shell.initial import init
from autoprune.shell.root import app, main
from autoprune.terminal import echo

__all__ = ["app", "init", "looking", "main"]


@app.command()
@settings(SETTINGS)
def search(
    given: dict[str, Any],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run's directory; the default is a new one in runs/.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Search the best pruning policy within a budget. Without options it searches the embedded model."""
    from autoprune import rundir

    chosen = chosen_settings(config, given, overrides)
    path = out or rundir.new_run_path(chosen.agent, chosen.seed)
    with searching(path, as_json) as display:
        from autoprune import rounds

        result = rounds.start(chosen, path, display)
    tell_result(result, as_json)


@app.command()
@settings(name for name in SETTINGS if name != "agent")
def compare(
    given: dict[str, Any],
    overrides: Overrides = None,
    agents: Annotated[
        str, typer.Option(metavar="A,B,...", help="Agents to compare.", autocompletion=completion.agents)
    ] = "evolution,ppo,tpe,random",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; each agent searches once with each.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="The comparison's directory; the default is a new one in runs/.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Search with several agents and seeds within the same limits, and rank the agents.

    --seed is the first seed. agent_options.AGENT.KEY=VALUE is a setting of one agent. The same command continues an
    interrupted comparison, and agents and seeds may be added to it.
    """
    from autoprune import rundir

    common = chosen_settings(config, given, overrides)
    path = out or rundir.new_run_path("compare", common.seed)
    names = [name.strip() for name in agents.split(",") if name.strip()]
    with searching(path, as_json, "comparison") as display:
        from autoprune.comparing import comparison

        numbers = list(range(common.seed, common.seed + seeds))
        compared = comparison.compare(common, names, numbers, path, display)
    tell_comparison(compared, as_json)


@app.command()
@settings(OF_RESUME, kept=True)
def resume(given: dict[str, Any], run: Run, as_json: Json = False) -> None:
    """Continue a run from its journal, or finish a comparison. Options change where it runs and its limits.

    A setting that is not given stays as it was.
    """
    check_run(run)
    with searching(run, as_json, "known") as display:
        from autoprune import rounds
        from autoprune.comparing import comparison
        from autoprune.result import SearchResult

        result = (comparison if comparison.is_comparison(run) else rounds).resume(run, display, given)
    if isinstance(result, SearchResult):
        tell_result(result, as_json)
    else:
        tell_comparison(result, as_json)


@app.command()
def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Directory of a run; with --to gguf also of an export, as RUN/finetuned/network.",
            autocompletion=completion.runs,
        ),
    ],
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory to write to; --to gguf and --to policy write a file.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Any option of the exporter, as outtype=q8_0 of gguf."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Exporter, see `autoprune list exporters`; the default is the one that fits the network.",
            autocompletion=completion.exporters,
        ),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="A policy file of the run, such as one in its front/; the default is the best.")
    ] = None,
    uniform: Annotated[
        bool,
        typer.Option("--uniform", help="Short for uniform=true: pad with zeros, so that stock transformers loads it."),
    ] = False,
    refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Write the refitted network, or the one that the search scored.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Write the pruned network of a finished run."""
    from autoprune.policy import Policy
    from autoprune.recovery.result import finetuned_network, of_earlier_policy
    from autoprune.written import parse_overrides

    check_run(run, directory)
    options = parse_overrides([*(overrides or []), *(["uniform=true"] if uniform else [])])
    with progress(as_json) as display:
        from autoprune.exporting import export_run

        done = export_run(run, directory, to, options, policy, display.on_stage, refit)
    if as_json:
        told = {"path": str(done.path), "to": done.to, "uniform": bool(options.get("uniform")), "run": str(run)}
        sizes = {"bytes": done.written, "dense_bytes": done.dense} if done.written else {}
        emit(told | {"options": options} | sizes)
        return
    if policy is None and finetuned_network(run).is_dir():
        earlier = of_earlier_policy(run, Policy.load(run / "policy.json"))
        where = earlier or f"The fine-tuned network is '{finetuned_network(run)}'."
        echo(f"autoprune: this is the network of the search, without its fine-tuning. {where}", err=True)
    beside = f", the dense network {done.dense / 1e6:,.1f} MB" if done.dense else ""
    size = f" ({done.written / 1e6:,.1f} MB of weights{beside})"
    echo(f"exported: {done.path}{size if done.written else ''}")


@app.command()
def push(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of an export.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository of the hub, as me/smaller.")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is seen by its owners alone.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, which is made unless it exists; the default is main.")
    ] = None,
    message: Annotated[
        str | None, typer.Option(help="Message of the commit; the default says what was pruned.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload an export to the hub. The token is that of `hf auth login`, or HF_TOKEN."""
    from dataclasses import asdict

    from autoprune import api

    with progress(as_json) as display:
        display.on_stage("uploading", 0.0)
        pushed = api.push(directory, repo, private=private, revision=revision, message=message)
    if as_json:
        emit(asdict(pushed))
    else:
        echo(f"pushed:  {pushed.url} ({len(pushed.files)} files, {pushed.size / 1e6:,.1f} MB)")


@app.command()
def finetune(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Any other setting, as labels=0.3 or distill=kl,hidden-mse=0.5; docs/guides/recovery.md has them.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=0, help="Passes over the text or the images; 0 only refits.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Limit on the number of steps.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(parser=parse_count, metavar="N", help="Limit on the tokens, or images, trained on.")
    ] = None,
    max_time: Annotated[
        float | None,
        typer.Option(parser=parse_seconds, metavar="TIME", help="Limit on the time, in seconds or as 10min."),
    ] = None,
    lora: Annotated[
        int, typer.Option(min=0, metavar="RANK", help="Rank of adapters to train and merge; 0 trains all weights.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; the default is the network's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences (8) or images (128) in a step.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that train together, each on its own GPU.")
    ] = None,
    augment: Annotated[bool | None, typer.Option("--augment/--no-augment", help="Shift and mirror images.")] = None,
    track: Annotated[str | None, typer.Option(help="Trackers, with commas; the default is the run's own.")] = None,
    as_json: Json = False,
) -> None:
    """Refit and fine-tune the policy of a run; the dense network teaches. The same command continues after a stop.

    At least one of --epochs, --max-steps, --max-tokens and --max-time is needed. The first one reached ends training.
    """
    check_run(run)
    from dataclasses import asdict

    from autoprune import api
    from autoprune.recovery.shown import lines_of
    from autoprune.written import parse_overrides

    options = {
        "epochs": epochs, "max_steps": max_steps, "max_tokens": max_tokens, "max_time": max_time, "lr": lr,
        "batch": batch, "workers": workers, "augment": augment, "track": track,
    }  # fmt: skip
    given: dict[str, Any] = {"lora": lora, "seed": seed}
    given |= {key: value for key, value in options.items() if value is not None}
    given |= parse_overrides(overrides or [])
    with progress(as_json) as display:
        recovered = api.finetune(run, progress=display.on_stage, **given)
    if as_json:
        law = None if recovered.law is None else recovered.law.model_dump()
        emit(asdict(recovered) | {"after": asdict(recovered.after), "path": str(recovered.path), "law": law})
        return
    for line in lines_of(recovered):
        echo(line)
    echo(f"network: {recovered.path}")


@app.command()
def evaluate(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A network in Hugging Face form, exported or not, or a run.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA[=WEIGHT]",
            help="What `search` takes; may be repeated. The default is Python's own documentation.",
        ),
    ] = None,
    data_column: Annotated[str | None, typer.Option(help="Column of records that holds the texts.")] = None,
    data_split: Annotated[
        str | None, typer.Option(help="Split of a data set; the default is train, or the only one.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(min=8, help="Tokens in a sequence; the default is 512, or the run's own.")
    ] = None,
    max_sequences: Annotated[int, typer.Option(min=1, help="Limit on the number of sequences.")] = 64,
    device: Annotated[str | None, typer.Option(help="Torch device; the default is cpu, or the run's own.")] = None,
    as_json: Json = False,
) -> None:
    """Measure loss, quality (perplexity, accuracy), parameters, size and speed of a network on its data."""
    check_there(directory)
    from autoprune import api
    from autoprune.data_names import names_of

    options = {
        "sequence_length": sequence_length, "device": device, "data_column": data_column, "data_split": data_split,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    with progress(as_json) as display:
        names = names_of(data) if data else None
        report = api.evaluate(directory, names, max_sequences=max_sequences, progress=display.on_stage, **given)
    if as_json:
        emit(report)
        return
    from autoprune.evaluation_text import lines_of

    for line in lines_of(report):
        echo(line)
