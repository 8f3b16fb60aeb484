"""The sections of a card: what was measured, how the network was made, and the commands that make it again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoprune import live, refit_text
from autoprune.cards import repeat
from autoprune.cards.markdown import block, code, name, table
from autoprune.config import SearchConfig
from autoprune.cost_lines import cost_lines
from autoprune.level import GROUPS
from autoprune.policy import Policy
from autoprune.task_choice import measure
from autoprune.wording import Words, duration


@dataclass(frozen=True)
class Recovery:
    """What was done to a network after it was cut, and what it was worth.

    Args:
        rows: network -> what was measured of it on the validation split, by key; the last is what is exported.
        given: the settings of the fine-tuning that the user gave.
        chosen: which of the networks is exported: `before`, `refitted` or `trained`.
        trained: tokens or images that it was trained on, and seconds; None where nothing was trained.
        ahead: a sentence on what more tokens would buy, where that is known.
    """

    rows: Mapping[str, Mapping[str, float]]
    given: Mapping[str, Any]
    chosen: str
    trained: tuple[int, float] | None = None
    ahead: str | None = None


def numbers(policy: Policy, words: Words, parameters: int | None, dense: int | None) -> list[str]:
    """Sizes and costs, dense and pruned."""
    lines = ["## Numbers", ""]
    if parameters is not None and dense is not None:
        lines += [f"{parameters:,} parameters in this directory, {dense:,} in the dense network.", ""]
    return [*lines, *table(("", "dense", policy.called, "kept", "at most"), _costs(policy))]


def losses(policy: Policy, words: Words) -> list[str]:
    """What the search measured on data that no agent has seen: dense, uniform and best."""
    measured = {row: one for row, one in (policy.losses.get("validation") or {}).items() if isinstance(one, dict)}
    if not measured:
        return []
    loss = policy.provenance.get("loss")
    heads = {"loss": f"loss ({name(loss)})"} if isinstance(loss, str) else {}
    told = "Measured on the validation split, which the search does not see, before any fine-tuning:"
    refitted = refit_text.told(policy, words)
    lines = ["", told, "", *_measured("policy", measured, words, heads)]
    return [*lines, "", f"In this table, {refitted}"] if refitted else lines


def recovered(recovery: Recovery | None, words: Words) -> list[str]:
    """What refitting and fine-tuning gave."""
    if recovery is None:
        return []
    chosen = {
        "before": "The network as the search found it was the best of them, and is the one in this directory.",
        "refitted": "The refitted network, whose consumers were solved again, is the one in this directory.",
        "trained": "The trained network is the one in this directory.",
    }.get(recovery.chosen, "")
    spent = ""
    if recovery.trained is not None:
        items, seconds = recovery.trained
        spent = f" Training saw {items:,} {words.items} in {duration(seconds)}."
    told = f"Measured on the same split, before and after recovery. {chosen}{spent}"
    ahead = ["", recovery.ahead] if recovery.ahead else []
    return ["", "## Recovery", "", told, "", *_measured("network", recovery.rows, words), *ahead]


def origin(config: SearchConfig, policy: Policy, words: Words, data: str) -> list[str]:
    """Who searched, by what, on what, for how long, and when."""
    known, spent = policy.provenance, policy.provenance.get("spent")
    rows = [("agent", code(_short(known.get("agent", config.agent)))), ("seed", code(known.get("seed", config.seed)))]
    rows += [("criterion", code(_short(known.get("criterion", config.criterion))))]
    rows += [("loss", code(_short(known.get("loss", config.loss)))), ("data", name(data))]
    rows += [("budget", ", ".join(code(f"{_short(key)}={bound:g}") for key, bound in config.budgets.items()))]
    rows += [("bounds are of", "the whole network")] if config.of == "model" else []
    forms = sorted({unit.form for unit in policy.units} - {GROUPS})
    rows += [("forms of levels", ", ".join(map(code, [GROUPS, *forms])))] if forms else []
    if isinstance(spent, dict):
        told = f"{_number(spent.get('evals'))} evaluations, {_number(spent.get('tokens'))} {words.items}"
        rows.append(("spent", told))
        seconds = spent.get("seconds")
        rows += [("time of the search", duration(seconds))] if isinstance(seconds, int | float) else []
    rows += [("made", name(known["created"]))] if isinstance(known.get("created"), str) else []
    versions = known.get("versions")
    if isinstance(versions, dict):
        rows.append(("versions", ", ".join(name(f"{package} {number}") for package, number in versions.items())))
    return ["", "## How it was made", "", *table(("", ""), rows)]


def commands(config: SearchConfig, options: str, recovery: Recovery | None) -> list[str]:
    """The commands that make it again."""
    search = repeat.search_command(config)
    if live.PREFIX in search:
        told = "It was made in Python from objects that no file holds, so there is no command that makes it again."
        return ["", "## How to make it again", "", told]
    lines = [search, repeat.export_command(options) if recovery is None else repeat.finetune_command(recovery.given)]
    read = repeat.files(config)
    needed = f"in a folder that holds {' and '.join(map(code, read))}" if read else "anywhere"
    where = "" if recovery is None else f" The network is then in {code(f'{repeat.RUN}/finetuned/network')}."
    told = f"The commands that made it, with the versions above. They run {needed}.{where}"
    return ["", "## How to make it again", "", told, "", block("\n".join(lines), "sh")]


def _short(text: object) -> str:
    return live.shown(str(repeat.shared(text)))


def _costs(policy: Policy) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for line in cost_lines(policy.costs):
        bound = "" if line.bound is None else f"{_number(line.bound)} ({_share(line.bound, line.dense)})"
        shown = ", ".join(filter(None, (name(_short(line.metric)), line.what)))
        unit = f" ({line.measure})" if line.measure else ""
        kept = _share(line.policy, line.dense)
        rows.append((f"{shown}{unit}", _number(line.dense), _number(line.policy), kept, bound))
    return rows


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _measured(
    what: str, rows: Mapping[str, Mapping[str, Any]], words: Words, heads: Mapping[str, str] | None = None
) -> list[str]:
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    known = {key: measure(key, words) for key in keys}
    cells = [
        (name(row), *(known[key].written(one[key]) if key in one else "" for key in keys)) for row, one in rows.items()
    ]
    return table((what, *((heads or {}).get(key, name(known[key].name)) for key in keys)), cells)


def _number(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"
