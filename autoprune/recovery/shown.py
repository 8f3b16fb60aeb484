"""The result of a fine-tuning as text and as HTML for a notebook's cell."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from autoprune.drawing.markup import tag
from autoprune.drawing.style import NOTEBOOK
from autoprune.drawing.tables import note, table
from autoprune.fine_tuned import forecast_told
from autoprune.result_text import WIDTH, in_columns
from autoprune.task_choice import measure
from autoprune.terminal import clean

if TYPE_CHECKING:
    from autoprune.recovery.finetuning import Recovered


def text_of(recovered: "Recovered") -> str:
    """The measurements, how far training went, and where the network is."""
    lines = [f"Recovered({_chosen(recovered)})", *in_columns(_rows(recovered))]
    for one in _remarks(recovered):
        lines += textwrap.wrap(one, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(map(clean, [*lines, f"  network: {recovered.path}"]))


def lines_of(recovered: "Recovered") -> list[str]:
    """What the command prints: a line for each network, how far training went, and what more tokens would buy."""
    words = recovered.dense.words
    order = [*words.known, *asdict(recovered.dense)]
    known = {key: measure(key, words) for key in dict.fromkeys(order)}
    lines = []
    for name, row in recovered.table.items():
        lines.append(
            f"{name:<9} {', '.join(f'{one.name} {one.written(row[k])}' for k, one in known.items() if k in row)}"
        )
    lines += [f"trained:  {recovered.training.told()}"] if recovered.training else []
    ahead = forecast_told(recovered.law, words)
    return [*lines, *([f"ahead:    {ahead}"] if ahead else [])]


def html_of(recovered: "Recovered") -> str:
    """The same as a table."""
    head, *rows = _rows(recovered)
    return tag(
        "div",
        NOTEBOOK,
        tag("p", tag("b", "Fine-tuning "), _chosen(recovered)),
        table("Fine-tuning", head, rows),
        *map(note, _remarks(recovered)),
        note("Network: ", tag("code", recovered.path)),
        class_="autoprune",
    )


def _chosen(recovered: "Recovered") -> str:
    """The network that is handed over. "Best" is the word for the policy that a search found."""
    found = recovered.chosen == "before"
    return f"recovered: {'the network as it was found' if found else f'the {recovered.chosen} network'}"


def _rows(recovered: "Recovered") -> list[Sequence[str]]:
    words = recovered.dense.words
    known = {key: measure(key, words) for key in asdict(recovered.dense)}
    rows = [
        [name, *(one.written(row[key]) if key in row else "" for key, one in known.items())]
        for name, row in recovered.table.items()
    ]
    return [["", *(one.name for one in known.values())], *rows]


def _remarks(recovered: "Recovered") -> list[str]:
    training, ahead = recovered.training, forecast_told(recovered.law, recovered.dense.words)
    return [*([f"trained {training.told()}"] if training else []), *filter(None, [recovered.told(), ahead])]
