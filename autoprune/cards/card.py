"""Writes the card of an export: how it is loaded, what was measured, how it was made, under which licence."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.cards import sections
from autoprune.cards.loading import Form
from autoprune.cards.markdown import name
from autoprune.cards.metadata import CARD, CARD_BYTES, data_name, dense_name, license_files, metadata
from autoprune.cards.sections import Recovery
from autoprune.config import SearchConfig
from autoprune.policy import Policy
from autoprune.wording import Words

if TYPE_CHECKING:
    from huggingface_hub import ModelCard


def write_card(
    directory: Path,
    form: Form,
    config: SearchConfig,
    policy: Policy,
    words: Words,
    *,
    base: str = "",
    auto: str = "",
    parameters: int | None = None,
    dense: int | None = None,
    recovery: Recovery | None = None,
) -> None:
    """Write `README.md` into an export, and copy the dense network's files of terms beside it.

    Args:
        directory: where to.
        form: the form of the export.
        config: of the run.
        policy: what was exported.
        words: of the run's task.
        base: what the form's text names: a class, a function or an input.
        auto: the auto class of transformers that loads the dense network; "" where none does.
        parameters: of the network in the directory; None where it holds none.
        dense: parameters of the dense network.
        recovery: what was done after the search; None where nothing was.
    """
    card = card_of(form, config, policy, words, base, auto, parameters, dense, recovery)
    card.save(directory / CARD)
    for file in license_files(config):
        if file.stat().st_size <= CARD_BYTES and not (directory / file.name).exists():
            shutil.copyfile(file, directory / file.name)


def card_of(
    form: Form,
    config: SearchConfig,
    policy: Policy,
    words: Words,
    base: str,
    auto: str,
    parameters: int | None,
    dense: int | None,
    recovery: Recovery | None,
) -> "ModelCard":
    """The card, as the hub's library has it; arguments are those of `write_card`."""
    from huggingface_hub import ModelCard

    validation = policy.losses.get("validation") or {"": {}}
    rows = (recovery.rows if recovery is not None else validation) if parameters is not None else {"": {}}
    measured = list(rows.values())[-1]  # of the network in the directory
    told = name(dense_name(config))
    trained = config.rounds > 1 or (recovery is not None and recovery.chosen == "trained")
    data = metadata(config, words, measured, form.library, auto, trained)
    in_rounds = (
        f" It was pruned in {config.rounds} rounds and trained between them: its weights are not those of the dense "
        "network, and the policy alone does not make it."
    )
    lines = [
        f"# {told}, pruned",
        "",
        f"{told} was pruned with autoprune. `policy.json` says what was kept of every unit, and where it comes from."
        f"{in_rounds if config.rounds > 1 else ''}",
        "",
        "## How to load it",
        "",
        form.told(base or dense_name(config), auto),
        *sections.numbers(policy, words, parameters, dense),
        *sections.losses(policy, words),
        *sections.recovered(recovery, words),
        *sections.origin(config, policy, words, data_name(config, words)),
        *sections.commands(config, form.options, recovery),
        *_terms(config, data.get("license"), data.get("license_name")),
    ]
    text = "\n".join(lines).rstrip() + "\n"
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def _terms(config: SearchConfig, license: str | None, named: str | None) -> list[str]:
    """Under which licence the dense network is, as far as it is known."""
    files = [file.name for file in license_files(config)]
    beside = f" Its terms are beside this file: {', '.join(map(name, files))}." if files else ""
    if license is None and not files:
        told = "The dense network's card names no licence. Look at where it comes from before you give this one on."
    elif license is None:
        told = f"A pruned network is under the licence of its dense network.{beside}"
    else:
        told = f"That of the dense network: {name(named or license)}.{beside}"
    return ["", "## Licence", "", told]
