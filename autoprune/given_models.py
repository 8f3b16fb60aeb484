"""Live models: a network that is in memory, given in Python with its tokenizer or its image processor.

The user's object is never changed. A model of transformers is saved once, with what it reads through, in
`<cache>/models/DIGEST/NAME`, and the run names that folder: workers, exports and resuming work as with any directory. A
plain module has no form without code: a copy enters the table of live objects (live.py).
"""

import copy
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from autoprune import live, objects, usercode
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.files.cache import cache_directory
from autoprune.files.writing import BUILDING, scratch
from autoprune.networks import pretrained
from autoprune.networks.checks import check_task
from autoprune.networks.loading import digest, explained, family_of, model_types
from autoprune.networks.quiet import without_bars
from autoprune.networks.unsupported import check_adapters, check_floats, check_place, unsaved_code, unwrapped
from autoprune.ports.task import Task
from autoprune.rundir import check_is_run
from autoprune.task_choice import load_task

READERS = ("tokenizer", "processor")
"""Arguments besides the model: what the model reads through."""
CARD = "README.md"
TERMS = (CARD, "LICEN[CS]E*", "NOTICE*")
"""Files of a model's directory that are kept with it: its card and its terms."""
FOLDER = "models"
"""Of the cache, that holds models."""


def with_model(settings: Mapping[str, Any], places: bool = True) -> dict[str, Any]:
    """Settings in which a live model, with its tokenizer or processor, is the name of what was kept of it.

    Args:
        settings: as a user gives them in Python, with `tokenizer` and `processor` besides those of `SearchConfig`.
        places: whether the search runs where the model is, if no device is given.

    Raises:
        UserError: the model cannot be searched on, or does not fit its tokenizer; the message says how to mend it.
    """
    found = {key: value for key, value in settings.items() if key not in READERS}
    model, readers = settings.get("model"), [settings.get(name) for name in READERS]
    if model is None or isinstance(model, str | os.PathLike):
        for name, reader in zip(READERS, readers, strict=True):
            if reader is not None:
                raise UserError(f"{name} goes with a live model: a directory or hub name has its own. Leave {name}.")
        return found
    if not isinstance(model, nn.Module | type) and callable(model) and not hasattr(model, "model"):
        known = objects.importable("models", model)
        if known is not None:
            return found | {"model": known}
        model = usercode.call("model", model)
    network = unwrapped(model)
    found["model"] = named(network, *readers)
    code = unsaved_code(network)
    if code is not None:
        warnings.warn(code, UserWarning, stacklevel=4)
    device = str(next(network.parameters()).device)
    return ({"device": device} if places and device != "cpu" else {}) | found


def named(network: nn.Module, tokenizer: Any = None, processor: Any = None, out: Path | None = None) -> str:
    """The name of a network in a run's files, once it is kept.

    Args:
        network: in memory.
        tokenizer: that of a language model.
        processor: that of a model that reads images, or one that holds a tokenizer.
        out: a folder of an earlier call, to be written again; None is the folder in the cache.

    Raises:
        UserError: the network cannot be searched on, it is not what was in `out`, or the disk is full.
    """
    check_adapters(network)
    check_floats(network)
    check_place(network)
    if not any(True for _ in network.parameters()):
        raise UserError("the model has no parameters: there is nothing to prune.")
    if not _of_transformers(network):
        return _kept(network, tokenizer, processor)
    if _checked_task(network).read_by == "tokenizer":
        reader = _tokenizer_of(network, tokenizer, processor)
    else:
        reader = _processor_of(tokenizer, processor)
    try:
        return str(_saved(network, reader, out))
    except (OSError, SafetensorError) as error:
        raise UserError(f"the model could not be saved to the cache '{cache_directory()}' ({error}).") from error
    except RuntimeError as error:  # of transformers: weights that are shared in a way that its files do not hold
        why = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"transformers cannot save the model ({why}): give layers that share weights a copy of their own each."
        ) from error


def give_again(run: Path, parts: Iterable[Any], given: Mapping[str, Any]) -> None:
    """Give a run its live model and its live parts again, which were given in another process.

    Args:
        run: its directory.
        parts: objects.
        given: `model`, `tokenizer` and `processor`. Without a model, none is needed.

    Raises:
        UserError: the run was begun with others, or there is no run.
    """
    check_is_run(run)
    config = load_config(run / "config.yaml")
    objects.give_again(parts, objects.live_names(config.model_dump()))
    if given["model"] is None:
        return
    if not isinstance(given["model"], nn.Module):
        raise UserError("resume takes the live model that the run was begun with: leave model for any other run.")
    network, tokenizer, processor = unwrapped(given["model"]), given["tokenizer"], given["processor"]
    place = Path(config.model or "")
    if live.is_live(config.model):
        if named(network, tokenizer, processor) != config.model:
            raise UserError(f"the model is not the {live.stem(str(config.model))} that the run was begun with.")
    elif live.SAVED.search(str(place)):
        named(network, tokenizer, processor, out=place)
    else:
        raise UserError(f"the run was begun with the model '{config.model or 'embedded'}': leave model.")


# -- plain modules ------------------------------------------------------------------------------------------------


def _kept(network: nn.Module, tokenizer: Any, processor: Any) -> str:
    for name, reader in zip(READERS, (tokenizer, processor), strict=True):
        if reader is not None:
            raise UserError(
                f"{name} goes with a model of transformers, and the model is a plain {type(network).__name__}: give "
                "image_mean and image_std."
            )
    own = live.copied(network, "model").cpu()
    return live.keep(own, digits=live.MODEL_DIGITS)


# -- models of transformers ---------------------------------------------------------------------------------------


def _of_transformers(network: nn.Module) -> bool:
    return hasattr(network, "save_pretrained") and hasattr(getattr(network, "config", None), "model_type")


def _checked_task(network: Any) -> Task:
    """The task of a model.

    Raises:
        UserError: no family covers it, or a search would load another class from its weights.
    """
    called, config = _called(network), copy.deepcopy(network.config)
    config.architectures = [type(network).__name__]
    if config.model_type not in model_types():
        check_task(called, config)
    task = load_task(family_of(str(config.model_type)).task)
    try:
        loaded = pretrained.auto_class(task.auto_class)._model_mapping[type(network.config)]
    except KeyError:  # code of its own
        return task
    classes = loaded if isinstance(loaded, tuple) else (loaded,)
    if type(network) not in classes:
        raise UserError(
            f"the model is a {type(network).__name__}, and a search loads a {classes[0].__name__} from its weights, "
            f"another network: give a {classes[0].__name__}, as {task.auto_class}.from_pretrained(...) makes it."
        )
    return task


def _tokenizer_of(network: Any, tokenizer: Any, processor: Any) -> Any:
    given = getattr(processor, "tokenizer", processor) if tokenizer is None else tokenizer
    if given is None:
        raise UserError(
            f"a {type(network).__name__} reads text through a tokenizer: give tokenizer=, as "
            f"AutoTokenizer.from_pretrained('{_name_or_path(network) or 'NAME'}')."
        )
    if isinstance(given, str | os.PathLike):
        with explained(os.fspath(given)):
            given = pretrained.load(pretrained.TOKENIZER, os.fspath(given))
    if not (callable(given) and hasattr(given, "save_pretrained") and hasattr(given, "get_vocab")):
        way = " Wrap it: PreTrainedTokenizerFast(tokenizer_object=...)." if hasattr(given, "encode") else ""
        raise UserError(
            f"tokenizer is of the type {type(given).__name__}, and a tokenizer of transformers, its directory or its "
            f"hub name is needed.{way}"
        )
    size, embedded = given.vocab_size, network.get_input_embeddings().weight.shape[0]
    if size > embedded:
        raise UserError(
            f"the tokenizer has {size:,} tokens, and the model embeds {embedded:,}: it is another model's tokenizer."
        )
    return given


def _processor_of(tokenizer: Any, processor: Any) -> Any:
    if tokenizer is not None:
        raise UserError("the model reads images and has no use for a tokenizer: give processor= instead.")
    if processor is None:
        return None
    given = getattr(processor, "image_processor", processor)
    if isinstance(given, str | os.PathLike):
        with explained(os.fspath(given)):
            given = pretrained.load(pretrained.PROCESSOR, os.fspath(given))
    if not hasattr(given, "save_pretrained") or hasattr(given, "get_vocab"):
        raise UserError(
            f"processor is of the type {type(given).__name__}, and an image processor of transformers is needed."
        )
    return given


def _saved(network: Any, reader: Any, out: Path | None) -> Path:
    """The folder of a model, which is written unless it is there."""
    root = cache_directory() / FOLDER if out is None else out.parent.parent
    root.mkdir(parents=True, exist_ok=True)
    with scratch(root, BUILDING) as folder:
        building = folder / "network"
        building.mkdir()
        if reader is not None:
            reader.save_pretrained(building)
        key = _digest(network, building)
        place = out or root / key / _called(network)
        if key != place.parent.name:
            raise UserError("the model or its tokenizer is not the one that the run was begun with.")
        if not (place / "config.json").is_file():
            _write(network, building)
            place.parent.mkdir(exist_ok=True)
            try:
                building.rename(place)
            except OSError:  # another process was faster
                if not (place / "config.json").is_file():
                    raise
    return place


def _digest(network: Any, reader: Path) -> str:
    """Hash of a model's configuration, weights and dtype, and of the files of what it reads through."""
    sha = hashlib.sha256(f"{digest(network)} {next(network.parameters()).dtype}".encode())
    for file in sorted(reader.rglob("*")):
        if file.is_file():
            sha.update(file.name.encode() + file.read_bytes())
    return sha.hexdigest()[: live.MODEL_DIGITS]


def _write(network: Any, directory: Path) -> None:
    """Save a model; transformers writes into the configurations, so that it is given copies of them."""
    view = copy.copy(network)  # shares the weights
    view.config = copy.deepcopy(network.config)
    generation = getattr(network, "generation_config", None)
    if generation is not None:
        view.generation_config = type(generation)()
    with without_bars():
        view.save_pretrained(directory)
    if generation is not None:  # as it is, unchecked: transformers refuses to save some that it loads
        generation.to_json_file(directory / "generation_config.json")
    source = _name_or_path(network)
    for file in (file for kind in TERMS for file in Path(source).glob(kind) if source and file.is_file()):
        shutil.copy(file, directory)
    if source and not Path(source).exists():
        (directory / CARD).write_text(f"---\nbase_model: {json.dumps(source)}\n---\n", encoding="utf-8")


def _name_or_path(network: Any) -> str:
    return str(getattr(network.config, "_name_or_path", "") or "")


def _called(network: Any) -> str:
    """A name for people: the last part of the hub name or directory that the model came from, or its class."""
    name = Path(_name_or_path(network)).name
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or type(network).__name__
