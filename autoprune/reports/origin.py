"""Where a result comes from, and how to get it again: configuration, provenance, commands."""

import json
import shlex

from pydantic import BaseModel

from autoprune.config import SearchConfig
from autoprune.drawing.markup import Markup, tag
from autoprune.drawing.tables import note, section, table
from autoprune.reports.record import Run
from autoprune.written import without_password


def configuration(run: Run) -> Markup:
    """Every setting with what it means; those that were set stand out."""
    rows = []
    for name, field in SearchConfig.model_fields.items():
        value = getattr(run.config, name)
        value = without_password(value) if name == "storage" and value else value
        changed = value != field.get_default(call_default_factory=True)
        said = "" if field.description is None else field.description
        cell = tag("td", _written(value), class_="set" if changed else None)
        rows.append([name, cell, tag("td", said, class_="description")])
    return section(
        "Configuration", note("Bold: not the default."), table("Configuration", ("setting", "value", ""), rows, "words")
    )


def provenance(run: Run) -> Markup | None:
    """Hashes and versions as the policy has them."""
    if run.policy is None:
        return None
    flat: dict[str, object] = {}
    for key, value in run.policy.provenance.items():
        if key == "spent" and isinstance(value, dict):  # whose tokens have the name of the task's items
            known = {"tokens": run.words.items, "evals": "evaluations"}
            value = {known.get(name, name): one for name, one in value.items()}
        word = "reward option" if key == "reward_options" else f"{key.removesuffix('s')} of"
        inner = {f"{word} {k}": v for k, v in value.items()} if isinstance(value, dict) else None
        flat |= {key.replace("_", " "): value} if inner is None else inner
    rows = [[key, tag("td", tag("code", _written(value)))] for key, value in flat.items()]
    return section("Provenance", table("Provenance", ("", ""), rows, "words"))


def commands(run: Run) -> Markup:
    """The same search again, and what can be done with this one."""
    path, config = shlex.quote(str(run.path)), shlex.quote(str(run.path / "config.yaml"))
    lines = [f"autoprune search --config {config} --out again", f"autoprune resume {path}"]
    if run.policy is not None:
        lines += [f"autoprune export {path} pruned", f"autoprune finetune {path} --epochs 10"]
        lines += [f"autoprune show {path}", f"autoprune evaluate {path}"]
    said = "The first line repeats the search from its configuration, the second goes on with this run."
    if run.config.max_time is not None:
        said += " The search was limited by time, and scores as many policies as the machine has time for."
    return section("Reproduce", note(said), tag("pre", tag("code", "\n".join(lines)), tabindex=0))


def _written(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, BaseModel):  # settings within a setting
        return ", ".join(f"{key} {_written(inner)}" for key, inner in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
