"""The model card of an exported directory: how it is loaded, what was measured, where it comes from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoprune import live
from autoprune.assembly import Assembly
from autoprune.cost_lines import cost_lines
from autoprune.files.reading import parse_json, parse_yaml, read_bytes
from autoprune.policy import Policy
from autoprune.task_choice import measure
from autoprune.wording import Words

CARD = "README.md"
CARD_BYTES = 1_000_000
CARRIED = ("license", "license_name", "license_link", "language", "base_model")
"""What the card of the dense network says that is true of the pruned one too."""

_IMPORT = """Its layers have widths of their own, which stock transformers does not build. With autoprune imported, at
any time before the network is loaded, it does:

```python
import autoprune  # pip install autoprune
from transformers import {auto}

model = {auto}.from_pretrained("this directory")
```

Tools that load networks themselves are started with that import, as lm-eval:

```sh
python -c "import autoprune; from lm_eval.__main__ import cli_evaluate; cli_evaluate()" \\
    --model hf --model_args pretrained=DIRECTORY --tasks arc_easy
```

Without it, transformers says that it does not recognize the type `autoprune` and that it may be out of date: another
version of it does not help.
"""

NATIVE = (
    _IMPORT
    + """
**Without autoprune:** `autoprune export RUN DIRECTORY --uniform` writes the uniform form, a stock `{base}` padded with
zeros, which transformers and whatever builds on it load as it is, with the same outputs.
"""
)

TRAINED = (
    _IMPORT
    + """
It was trained after it was cut. `autoprune export`, in any form, writes the network as the search found it.
"""
)

UNIFORM = """It is a stock `{base}`, whose layers are padded with zeros to the shape of one: nothing but transformers is
needed.

```python
from transformers import {auto}

model = {auto}.from_pretrained("this directory")
```

The form without the zeros is written by `autoprune export RUN DIRECTORY`.
"""

MODULE = """torch and safetensors are enough.

```python
import sys

sys.path.insert(0, "this directory")
from load_module import load

network = load(dense)  # the module that `{base}` makes, with or without its weights
```
"""

ONNX = """One graph in float32 for onnxruntime; `config.json` says what goes in and comes out.

```python
import onnxruntime

session = onnxruntime.InferenceSession("this directory/model.onnx")
logits = session.run(None, {{"{base}": array}})[0]
```
"""


def write_card(
    assembly: Assembly, policy: Policy, directory: Path, loading: str, base: str, parameters: int, auto: str = ""
) -> None:
    """Write `README.md` into an export.

    Args:
        assembly: with the dense network.
        policy: what was exported.
        directory: where to.
        loading: one of the texts above.
        base: what it is named there: a class, a function or an input.
        parameters: of the network in the directory.
        auto: the auto class that loads it.
    """
    name = _name(assembly)
    library = "onnx" if loading == ONNX else "" if assembly.loaded.is_plain else "transformers"
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in _metadata(assembly, library).items()),
        "---",
        f"# {name}, pruned",
        "",
        f"`{name}` was pruned with autoprune. `policy.json` says what was kept of every unit, and where it comes from.",
        "",
        "## How to load it",
        "",
        loading.format(base=base, auto=auto),
        "## Numbers",
        "",
        f"{parameters:,} parameters in this directory, {assembly.loaded.n_params:,} in the dense network.",
        "",
        *_table(("", "dense", "pruned", "at most"), _costs(policy)),
        *_losses(policy, assembly.task.words),
        *_origin(policy),
    ]
    (directory / CARD).write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _name(assembly: Assembly) -> str:
    """What the dense network is called, without this machine's folders."""
    path = assembly.loaded.path
    if live.is_live(path):
        return live.stem(path)
    name = Path(path).name if Path(path).exists() or assembly.loaded.is_plain else path
    return " ".join(name.split())


def _metadata(assembly: Assembly, library: str) -> dict[str, Any]:
    """What hubs read at the head of a card."""
    told: dict[str, Any] = {}
    path = Path(assembly.loaded.path)
    if not path.exists() and not assembly.loaded.is_plain:
        told["base_model"] = assembly.loaded.path
    if (path / CARD).is_file():
        told = {key: value for key, value in _head(path / CARD).items() if key in CARRIED} | told
    return told | ({"library_name": library} if library else {}) | {"tags": ["autoprune", "pruned"]}


def _head(card: Path) -> dict[str, Any]:
    """The record at the head of a card; nothing where there is none that can be read."""
    try:
        parts = read_bytes(card, CARD_BYTES).decode("utf-8").split("---\n", 2)
        head = parse_yaml(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
        return dict(parse_json(json.dumps(head))) if isinstance(head, dict) else {}
    except (OSError, ValueError, TypeError):  # a card is for people: the network is exported without it
        return {}


def _costs(policy: Policy) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for line in cost_lines(policy.costs):
        bound = "" if line.bound is None else f"{_number(line.bound)} ({line.bound / line.dense:.0%})"
        unit = f" ({line.measure})" if line.measure else ""
        rows.append((f"{line.name}{unit}", _number(line.dense), _number(line.policy), bound))
    return rows


def _losses(policy: Policy, words: Words) -> list[str]:
    """What the search measured on data that no agent has seen."""
    measured = {name: row for name, row in (policy.losses.get("validation") or {}).items() if isinstance(row, dict)}
    if not measured:
        return []
    keys = list(dict.fromkeys(key for row in measured.values() for key in row))
    known = {key: measure(key, words) for key in keys}
    rows = [
        (name, *(known[key].written(row[key]) if key in row else "" for key in keys)) for name, row in measured.items()
    ]
    loss = policy.provenance.get("loss")
    heads = [f"loss ({loss})" if key == "loss" and isinstance(loss, str) else known[key].name for key in keys]
    told = "Measured on the validation split, which the search does not see, before any fine-tuning:"
    return ["", told, "", *_table(("policy", *heads), rows)]


def _origin(policy: Policy) -> list[str]:
    """Who searched, by what, and when: what `policy.json` says of it, in a sentence."""
    known = policy.provenance
    versions = known.get("versions")
    packages = ", ".join(f"{name} {number}" for name, number in versions.items()) if isinstance(versions, dict) else ""
    told = (
        f"Found by the agent `{known.get('agent')}`, seed {known.get('seed')}, {known.get('created')}, with {packages}."
    )
    return ["", " ".join(told.split())]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _number(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"
