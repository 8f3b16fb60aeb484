"""The metadata at the head of a card: licence, base model, task, results. Hubs read it."""

import json
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune import live
from autoprune.cards import rules
from autoprune.cards.markdown import one_line
from autoprune.cards.repeat import shared
from autoprune.config import SearchConfig, is_module
from autoprune.data.keeping import is_kept
from autoprune.data_names import names_in
from autoprune.files.reading import parse_json, parse_yaml, read_bytes
from autoprune.networks.hub import is_reachable
from autoprune.wording import Words

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

CARD = "README.md"
CARD_BYTES = 1_000_000
LICENSE_FILE = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|USE_POLICY)([._-][\w.-]*)?", re.IGNORECASE)
"""Files of a dense network that say under which terms it may be given on."""
CACHED = re.compile(r"models--(.+)")
"""What the hub's cache calls the folder of a model."""
EMBEDDED = Path(__file__).parent.parent / "assets" / "tiny-llama"


def metadata(
    config: SearchConfig, words: Words, measured: Mapping[str, Any], library: str, auto: str, trained: bool
) -> "ModelCardData":
    """The metadata of an export.

    Args:
        config: of the run.
        words: of its task.
        measured: what was measured of the exported network on the validation split, by key.
        library: that loads it.
        auto: the auto class of transformers that loads the dense network; "" where none does.
        trained: whether the network was trained after it was cut.
    """
    from huggingface_hub import ModelCardData

    known: dict[str, Any] = rules.carried(head_of(config))
    base = base_model(config)
    if base is not None:
        known["base_model"] = base
    link, files = known.get("license_link", "://"), {file.name for file in license_files(config)}
    if "://" not in link and link not in files:  # a file that does not come along
        del known["license_link"]
    if known.get("base_model") and trained:
        known["base_model_relation"] = "finetune"
    results = _results(config, words, measured, pipeline_of(auto) or words.task or "pruning")
    if results:
        known |= {"eval_results": results, "model_name": f"{dense_name(config)}, pruned"}
    found = ModelCardData(**known, library_name=library, pipeline_tag=pipeline_of(auto), tags=["autoprune", "pruned"])
    record: dict[str, Any] = getattr(found, "to_dict")()
    for key in rules.broken(record):  # of a user's own task perhaps: the rest is told
        found.pop("eval_results" if key == "model-index" else key)
    return found


def dense_folder(config: SearchConfig) -> Path | None:
    """Where the dense network lies on this machine; None where it is a hub's, or a function makes it."""
    if config.model is None:
        return EMBEDDED
    if not isinstance(config.model, str) or is_module(config.model):
        return None
    try:
        return Path(config.model) if Path(config.model).is_dir() else None
    except (OSError, ValueError):
        return None


def dense_name(config: SearchConfig) -> str:
    """What the dense network is called, without the folders of this machine."""
    if config.model is None:
        return EMBEDDED.name
    if live.is_live(config.model):
        return live.stem(config.model)
    return one_line(base_model(config) or shared(config.model))


def base_model(config: SearchConfig) -> str | None:
    """The dense network's name on the hub; None where it is not known to be one's."""
    folder = dense_folder(config)
    if folder is not None:
        cached = next(filter(None, map(CACHED.fullmatch, folder.absolute().parts)), None)
        found = cached[1].replace("--", "/") if cached else None
    else:
        found = config.model if isinstance(config.model, str) and not is_module(config.model) else None
    return found if found is not None and rules.REPOSITORY.fullmatch(found) else None


def license_files(config: SearchConfig) -> list[Path]:
    """Files with the dense network's terms, which go where it goes."""
    folder = dense_folder(config)
    try:
        found = sorted(folder.iterdir()) if folder is not None else []
        return [file for file in found if LICENSE_FILE.fullmatch(file.name) and _is_own(file, folder)][:10]
    except OSError:
        return []


def _is_own(file: Path, folder: Path | None) -> bool:
    """Whether a file is of its folder: the hub's cache has links, and no other link is followed."""
    cache = next((one for one in file.absolute().parents if CACHED.fullmatch(one.name)), None)
    within = cache if cache is not None else folder
    return within is not None and file.is_file() and file.resolve().is_relative_to(within.resolve())


def head_of(config: SearchConfig) -> dict[str, Any]:
    """The metadata of the dense network's own card; empty where there is none that can be read."""
    folder, card = dense_folder(config), None
    if folder is not None:
        card = folder / CARD
    elif base_model(config) is not None:
        card = _of_hub(str(base_model(config)))
    if card is None or not card.is_file():
        return {}
    try:
        parts = read_bytes(card, CARD_BYTES).decode("utf-8-sig").replace("\r\n", "\n").split("---\n", 2)
        head = parse_yaml(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
        return dict(parse_json(json.dumps(head))) if isinstance(head, dict) else {}
    except (OSError, ValueError, TypeError):  # a card is for people: the network is exported without it
        return {}


def _of_hub(name: str) -> Path | None:
    """The card of a model of the hub, from the cache where there is one; None where it cannot be had."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, CARD)
    if isinstance(cached, str):
        return Path(cached)
    if not is_reachable():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Path(hf_hub_download(name, CARD))
    except Exception:  # whatever is the matter with the network or the hub: the export is written without it
        return None


def pipeline_of(auto: str) -> str | None:
    """The hub's name of what networks of an auto class do."""
    if not auto:
        return None
    from transformers.pipelines import SUPPORTED_TASKS

    for task, described in SUPPORTED_TASKS.items():
        if any(getattr(one, "__name__", "") == auto for one in described.get("pt", ())):
            return str(task)
    return None


def data_name(config: SearchConfig, words: Words) -> str:
    """What the data are called, without the folders of this machine."""
    if config.data is None:
        return f"the default {words.data}"
    return one_line(", ".join("data given live" if is_kept(name) else shared(name) for name in names_in(config.data)))


def _results(config: SearchConfig, words: Words, measured: Mapping[str, Any], kind: str) -> list[Any]:
    """What hubs show of a network's quality."""
    from huggingface_hub import EvalResult

    about: dict[str, Any] = {"task_type": kind, "dataset_type": words.data, "dataset_name": data_name(config, words)}
    values = {one: measured.get(one.key) for one in (words.quality, words.label_loss)}
    return [
        EvalResult(
            **about,
            dataset_split="validation",
            metric_type=one.name.replace(" ", "_"),
            metric_name=one.name,
            metric_value=round(float(value), 6),
        )
        for one, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]
