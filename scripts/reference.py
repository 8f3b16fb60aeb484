"""Pages of the reference that are generated from the code when the site is built (a hook of mkdocs)."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mkdocs.structure.files import File, Files

from autoprune import registry
from autoprune.config import SearchConfig
from autoprune.listing import describe, described
from autoprune.settings_record import WorkloadConfig
from autoprune.tasks.text_training import DEFAULTS
from autoprune.training.settings import ADAPTERS, LAYERNORM, TrainingSettings

PYTHON = """# Python

::: autoprune
    options:
      members: [search, resume, compare, finetune, evaluate, make_env]

::: autoprune.extend

::: autoprune.testing
    options:
      members: true
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {"parts": parts(), "settings": settings(), "python": PYTHON}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def parts() -> str:
    """Every registered part: its name and the first line of its documentation."""
    lines = ["# Parts that can be chosen by name", ""]
    for kind in registry.PARTS:
        rows = [f"| `{name}` | {cell(text)} |" for name, text in describe(kind)[kind].items()]
        if rows:
            lines += [f"## {kind.capitalize()}", "", "| name | what it is |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def settings() -> str:
    """Every setting of a search, of a workload and of fine-tuning."""
    how = "Give them as `KEY=VALUE`, in the YAML file of `--config`, or as arguments in Python."
    lines = ["# Settings", "", how, ""]
    for title, record in {"Search": SearchConfig, "Workload (`workload.KEY=VALUE`)": WorkloadConfig}.items():
        lines += [f"## {title}", "", "| setting | default | what it is |", "|---|---|---|"]
        for name, field in record.model_fields.items():
            default = field.get_default(call_default_factory=True)
            shown = "" if default is None or hasattr(default, "model_fields") else f"`{default}`"
            lines.append(f"| `{name}` | {shown} | {cell(field.description or '')} |")
        lines.append("")
    told = described(inspect.getdoc(TrainingSettings) or "")
    lines += ["## Fine-tuning (`finetune ... KEY=VALUE`)", "", "The defaults are those of networks with BatchNorm.", ""]
    lines += [f"- Networks without BatchNorm: {_defaults(LAYERNORM)}.", f"- Texts: {_defaults(DEFAULTS)}."]
    lines += [f"- Adapters (`lora`): {_defaults(ADAPTERS)}.", ""]
    lines += ["| setting | default | what it is |", "|---|---|---|"]
    lines += [f"| `{f.name}` | `{f.default}` | {cell(told.get(f.name, ''))} |" for f in fields(TrainingSettings)]
    lines.append("| `labels` | `0.5` | share of the labels in the loss; `weight` is 1 minus it |")
    return "\n".join([*lines, ""])


def _defaults(values: Mapping[str, Any]) -> str:
    """`lr=0.003`, ... as code."""
    return ", ".join(f"`{name}={value}`" for name, value in values.items())


def cell(text: str) -> str:
    """Text that does not end a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
