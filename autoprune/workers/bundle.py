"""The bundle of files that a worker needs. All workers of a machine map them, so k workers use little more than one.

In `<cache>/bundles/<key>/`:

- `network/`: the dense network in Hugging Face form, its groups in the store's order, in the dtype that it computes in;
- `levels`, `moments.safetensors`: the level store, and the moments where masks are searched (links to the cache);
- `tokens.safetensors`: the search split `[N, T]`; `space.json`: units and costs;
- `bundle.json`, written last.

The machine of the search has the bundle in its cache. Other machines get the files once, through Ray's object store,
and keep them in their own caches. A complete bundle is never changed.
"""

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from autoprune.assembly import Assembly, masked_weights
from autoprune.config import SearchConfig
from autoprune.errors import UserError
from autoprune.evaluation.evaluator import REFERENCE_BYTES, Evaluator, free_state_bytes
from autoprune.files.arrays import read_tensors
from autoprune.files.cache import cache_directory
from autoprune.files.reading import explained, read_json
from autoprune.files.writing import BUILDING, scratch
from autoprune.levels.placing import Placer
from autoprune.networks import pretrained
from autoprune.networks.loading import explained as loading
from autoprune.networks.loading import family_of
from autoprune.networks.quiet import without_bars
from autoprune.space_file import load_space, save_space
from autoprune.workers.chosen import open_store, save_chosen

if TYPE_CHECKING:
    from ray import ObjectRef

VERSION: Literal[1] = 1
CHUNK = 32 * 2**20  # bytes of a file that travel as one object


@dataclass(frozen=True)
class FileBundle:
    """The place of a bundle and the settings of its use. It is small enough to be sent with a call.

    Args:
        key: its name in a cache.
        directory: in the cache of the machine where the search runs.
        node: Ray's name for that machine.
        config: configuration of the search.
        workers: the most workers that share a machine's memory.
    """

    key: str
    directory: str
    node: str
    config: SearchConfig
    workers: int


@dataclass(frozen=True)
class Part:
    """A piece of a file of a bundle.

    Args:
        name: of the file, relative to the bundle's directory.
        chunk: a reference to its bytes, as a uint8 array.
    """

    name: str
    chunk: "ObjectRef[Any]"


class _Described(BaseModel):
    """`bundle.json`."""

    version: Literal[1] = VERSION
    masks: bool
    checkpoint_dtype: str


def write_bundle(assembly: Assembly, node: str, workers: int) -> FileBundle:
    """Write the bundle of an assembly, unless it is in the cache.

    Raises:
        UserError: the disk is full or not writable.
    """
    key = f"{assembly.store.directory.name}-{VERSION}{'-masks' if assembly.placer.masked else ''}"
    directory = cache_directory() / "bundles" / key
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            if not (directory / "bundle.json").is_file():
                _fill(assembly, directory)
    except (OSError, SafetensorError) as error:
        raise UserError(f"what workers need could not be written to '{directory}' ({error}).") from error
    config = assembly.config.model_copy(update={"storage": None})  # its URL may hold a password
    return FileBundle(key, str(directory), node, config, workers)


def _fill(assembly: Assembly, directory: Path) -> None:
    masked = assembly.placer.masked
    with scratch(directory.parent, BUILDING) as root:
        temporary = root / "bundle"
        temporary.mkdir()
        assembly.placer.release()
        model: Any = assembly.loaded.model
        with without_bars():
            model.save_pretrained(temporary / "network")
        save_file({"tokens": assembly.splits.search.contiguous()}, temporary / "tokens.safetensors")
        save_space(temporary / "space.json", assembly.space)
        save_chosen(temporary, assembly.store)
        (temporary / "levels").symlink_to(assembly.store.directory.absolute(), target_is_directory=True)
        if masked is not None and masked.path is not None:
            (temporary / "moments.safetensors").symlink_to(masked.path.absolute())
        described = _Described(masks=masked is not None, checkpoint_dtype=str(assembly.loaded.checkpoint_dtype))
        (temporary / "bundle.json").write_text(described.model_dump_json())
        shutil.rmtree(directory, ignore_errors=True)
        temporary.rename(directory)


def open_bundle(bundle: FileBundle, node: str) -> Evaluator:
    """Make an evaluator on the search split from the mapped files.

    Raises:
        UserError: the files are damaged, or the device is not usable here.
    """
    directory, config = _directory(bundle, node), bundle.config
    with explained("the bundle", directory, "delete that folder"):
        described = _Described.model_validate(read_json(directory / "bundle.json"))
        tokens_NT = read_tensors(directory / "tokens.safetensors")["tokens"]
        dtype = getattr(torch, described.checkpoint_dtype.removeprefix("torch."))
    space, _ = load_space(directory / "space.json")
    model = _network(directory / "network", config)
    task = config.chosen_task()
    view = task.view_of(model, family_of(str(model.config.model_type)), config, described.masks)
    store, masked = open_store(directory, space.units, config.home()), None
    if described.masks:
        moments = directory / "moments.safetensors"
        masked = masked_weights(view, space.units, store, moments if moments.exists() else None, dtype)
    loss = task.loss(config.loss)
    memory = REFERENCE_BYTES if bundle.workers <= 2 else 2 * REFERENCE_BYTES // bundle.workers
    placer = Placer(view, space, store, masked)
    states = config.state_memory or free_state_bytes(config.device, bundle.workers)
    return Evaluator(placer, tokens_NT.to(config.device), [loss], config.batch_size(), memory, states)


def _network(path: Path, config: SearchConfig) -> Any:
    """The network; in the host's memory its parameters are views of the mapped files."""
    files = sorted(path.glob("*.safetensors"))
    with loading(str(path)):
        model: nn.Module = pretrained.load(
            config.chosen_task().auto_class, str(path), config.trust_remote_code, dtype="auto"
        )
        model = model.to(config.home()).eval().requires_grad_(False)
        if config.home() == "cpu":
            parameters = dict(model.named_parameters())
            for file in files:
                for name, tensor in read_tensors(file).items():
                    if name in parameters:
                        parameters[name].data = tensor
    return model


# -- on other machines ------------------------------------------------------------------------------------------------


def is_here(bundle: FileBundle, node: str) -> bool:
    """Whether a bundle's files are on this machine."""
    return (_directory(bundle, node) / "bundle.json").is_file()


def parts_of(bundle: FileBundle) -> list[Part]:
    """Put the files of a bundle, including linked ones, into Ray's object store. `bundle.json` is the last."""
    import ray

    root = Path(bundle.directory)
    found = [path for path in sorted(root.rglob("*")) + sorted((root / "levels").rglob("*")) if path.is_file()]
    files = dict.fromkeys(path.relative_to(root) for path in found)
    last = Path("bundle.json")
    ordered = [*(file for file in files if file != last), last]
    return [Part(str(file), ray.put(chunk)) for file in ordered for chunk in _read(root / file)]


def receive(bundle: FileBundle, parts: Sequence[Part]) -> None:
    """Write a bundle's files to this machine's cache, unless another worker has done it.

    Raises:
        UserError: the disk is full or not writable.
    """
    import ray

    directory = cache_directory() / "bundles" / bundle.key
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            if (directory / "bundle.json").is_file():
                return
            shutil.rmtree(directory, ignore_errors=True)
            for part in parts:
                file = directory / part.name
                file.parent.mkdir(parents=True, exist_ok=True)
                chunk = ray.get(part.chunk)
                with file.open("ab") as stream:
                    stream.write(memoryview(chunk))
    except OSError as error:
        raise UserError(f"what workers need could not be written to '{directory}' ({error}).") from error


def _directory(bundle: FileBundle, node: str) -> Path:
    return Path(bundle.directory) if node == bundle.node else cache_directory() / "bundles" / bundle.key


def _read(path: Path) -> Iterator[Any]:
    import numpy as np

    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            yield np.frombuffer(piece, np.uint8)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a bundle's name for this process."""
    with (directory.parent / f".{directory.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
