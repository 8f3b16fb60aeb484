"""Arguments that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from autoprune.shell import completion

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.", autocompletion=completion.runs)]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting, as agent_options.offspring=16.")
]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings; options override it.")]
