"""The result of a fine-tuning as text and as HTML for a notebook's cell."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from autoprune.drawing.markup import tag
from autoprune.drawing.style import NOTEBOOK
from autoprune.drawing.tables import note, table
from autoprune.result_text import in_columns
from autoprune.task_choice import measure
from autoprune.terminal import clean

if TYPE_CHECKING:
    from autoprune.recovery.finetuning import Recovered


def text_of(recovered: "Recovered") -> str:
    """The measurements, how far training went, and where the network is."""
    lines = [f"Recovered({_chosen(recovered)})", *in_columns(_rows(recovered))]
    lines += [f"  {one}" for one in _remarks(recovered)]
    return "\n".join(map(clean, [*lines, f"  network: {recovered.path}"]))


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
    return (
        f"after: {'the network as it was found' if recovered.chosen == 'before' else f'the {recovered.chosen} network'}"
    )


def _rows(recovered: "Recovered") -> list[Sequence[str]]:
    words = recovered.dense.words
    named: dict[str, dict[str, float]] = {name: asdict(measurement) for name, measurement in recovered.rows.items()}
    keys = list(named["dense"])
    known = {key: measure(key, words) for key in keys}
    rows = [[name, *(known[key].written(row.get(key)) for key in keys)] for name, row in named.items()]
    return [["", *(known[key].name for key in keys)], *rows]


def _remarks(recovered: "Recovered") -> list[str]:
    training = recovered.training
    return [*([f"trained {training.told()}"] if training else []), *filter(None, [recovered.told()])]
