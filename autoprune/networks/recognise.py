"""Recognises files and folders that are not models, and says what to give instead.

A file is recognised by its first bytes, a folder by the names in it. Nothing is loaded.
"""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoprune import live
from autoprune.errors import UserError
from autoprune.files.near import did_you_mean, near
from autoprune.files.reading import read_head, read_json, reason
from autoprune.networks.hub import is_downloaded

FORM = "--model takes a directory in Hugging Face form (config.json, *.safetensors, tokenizer) or a hub name"
GGUF = (
    "Give the Hugging Face directory that it was made from. If there is none: read it with transformers, "
    "`AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=FILE)` (packages gguf and accelerate), put its state dict "
    "into a fresh model of the same configuration, and save that and the tokenizer with save_pretrained"
)
PICKLE = "autoprune reads no pickles. Load it where you trust it, and save the model with save_pretrained"
LFS = b"version https://git-lfs"
MANY = 100  # names of a folder that are looked at
ALIKE = 0.8  # how much a name must be like a folder's, of 1, to be that folder mistyped and no name of the hub


def check_directory(path: str) -> None:
    """Raise a UserError where a local file or directory, or what looks like one, is no model in safetensors."""
    place = Path(path)
    if place.is_dir():
        what = _folder(place)
        if what is not None:
            raise UserError(f"'{path}' {what}.")
    elif place.exists():
        raise UserError(f"'{path}' is {_file(place)}. {FORM}.")
    elif live.SAVED.search(path):
        raise UserError(
            f"the folder '{path}', in which a live model was saved, is gone: autoprune.resume(RUN, model=..., "
            "tokenizer=...) writes it again."
        )
    else:
        _check_name(path)


def _check_name(path: str) -> None:
    """Raise a UserError where what is not there is a path, or a mistyped one, and no name of the hub."""
    takes = "--model takes a Hugging Face directory or a hub name"
    if path.startswith((".", "/", "~")) or path.endswith("/") or path.count("/") > 1:
        raise UserError(f"no model directory at '{path}': {takes}.{did_you_mean(path)}")
    if path != path.strip() and Path(path.strip()).is_dir():
        raise UserError(f"no model directory at '{path}', with its spaces. Did you mean '{path.strip()}'?")
    meant = near(path, ALIKE)
    if meant is not None and meant.is_dir() and not is_downloaded(path):
        raise UserError(
            f"no model directory at '{path}': {takes}. Did you mean '{meant}'? For the hub's model of that very name, "
            f"download it first: `hf download {path}`."
        )


def _file(path: Path) -> str:
    """What a file is, and the way out."""
    try:
        head = read_head(path, 64)
    except (OSError, ValueError) as error:
        return f"a file that cannot be read ({reason(error)})"
    folder = f"its folder, '{path.parent}'"
    if head.startswith(b"GGUF"):
        return f"a GGUF file, as llama.cpp runs it. {GGUF}"
    if head.startswith(LFS):
        return "a pointer of Git LFS, whose file was not fetched: `git lfs pull` in its folder fetches it"
    if _is_safetensors(head):
        return f"a file of weights (safetensors) without its configuration. Give {folder}"
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"a pickle, as torch.save once wrote them. {PICKLE}"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file, as Keras writes them. Load it there, and save the model in safetensors"
    if head[4:8] == b"TFL3":
        return "a TFLite model, which cannot be pruned: give the network that it was made from"
    if path.suffix == ".onnx":
        return "an ONNX model, which cannot be pruned: give the network that it was made from"
    if path.suffix == ".py":
        return f"Python code. Name the function in it that makes the network, as {path}:FUNCTION"
    if path.suffix in (".json", ".yaml", ".yml"):
        return f"a file of settings. Give {folder}"
    return "a file and no directory of a model"


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and struct.unpack("<Q", head[:8])[0] < 2**32 and head[8:9] == b"{"


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return "a damaged zip archive"
    if "constants.pkl" in names:
        return "a TorchScript model, which cannot be pruned: give the network that it was made from"
    if "data.pkl" in names:
        return f"a checkpoint of torch.save, which holds a pickle. {PICKLE}"
    if any(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays. Put them into their model, and save that with save_pretrained"
    return "a zip archive: unpack it"


def _folder(path: Path) -> str | None:
    """What a folder is that is no model in safetensors, and the way out; None for a model."""
    found = sorted(entry.name for entry in path.iterdir())
    names = set(found)
    weights = [name for name in found if name.endswith(".safetensors")]
    own = [name for name in weights if not name.startswith("adapter_")]
    if "adapter_config.json" in names and not own:
        return f"holds an adapter (PEFT) and not its model: {_merge(path)}"
    if str(_told(path / "config.json").get("format")).startswith("autoprune."):
        return "holds a network that autoprune exported, and is pruned already: give the one that it was cut from"
    if "config.json" in names and own:
        return _incomplete(path, own)
    for known, told in FOLDERS:
        if known(names):
            return told
    inside = _models_inside(path)
    if inside:
        return f"holds no model, and the folders {', '.join(inside)} in it do: give one of these"
    if "config.json" in names:
        return f"holds no weights (*.safetensors).{_other_weights(found)}"
    holds = f"It holds {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}." if found else "It is empty."
    return f"holds no config.json: {FORM}. {holds}{_other_weights(found)}".rstrip(".")


FOLDERS: list[tuple[Callable[[set[str]], bool], str]] = [
    (lambda n: "compare.yaml" in n, "is a comparison of autoprune, not a model: give the network that was searched"),
    (
        lambda n: {"config.yaml", "journal.jsonl"} <= n or {"config.yaml", "policy.json"} <= n,
        "is a run of autoprune, not a model: give the network that it searched. `autoprune resume` goes on with it, "
        "`autoprune export` writes its network",
    ),
    (lambda n: "model_index.json" in n, "is a pipeline of diffusers, for which there is no search space"),
    (lambda n: any(name.endswith(".gguf") for name in n), f"holds a GGUF model, as llama.cpp runs it. {GGUF}"),
    (
        lambda n: "params.json" in n and any(name.startswith("consolidated.") for name in n),
        "holds a checkpoint in its maker's own form (consolidated.*): convert it to Hugging Face form, as with the "
        "script of its family in transformers",
    ),
    (
        lambda n: "config.json" not in n and bool(n & {"tokenizer.json", "tokenizer_config.json", "tokenizer.model"})
        and not any(name.endswith((".safetensors", ".bin")) for name in n),
        "holds a tokenizer alone: give the directory that holds the model's config.json and weights too",
    ),
]  # fmt: skip
"""What is told by the names in a folder."""


def _told(file: Path) -> dict[str, Any]:
    """What a JSON file says; nothing where it is none: loading it will tell."""
    try:
        told = read_json(file)
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _merge(path: Path) -> str:
    base = _told(path / "adapter_config.json").get("base_model_name_or_path")
    of = f" (of '{base}')" if isinstance(base, str) and base else ""
    return (
        f"merge it into its base{of} with peft, `PeftModel.from_pretrained(BASE, FOLDER).merge_and_unload()`, save "
        "that with save_pretrained, and give it"
    )


def _incomplete(path: Path, weights: list[str]) -> str | None:
    """What is missing of a model that has a configuration and weights."""
    for name in weights:
        if read_head(path / name, len(LFS)) == LFS:
            return f"holds pointers of Git LFS in the place of weights ({name}): `git lfs pull` there fetches them"
    named = _told(path / "model.safetensors.index.json").get("weight_map")
    missing = sorted(set(map(str, named.values())) - set(weights)) if isinstance(named, dict) else []
    return f"lacks {len(missing)} of its files of weights, as {missing[0]}: fetch it again" if missing else None


def _models_inside(path: Path) -> list[str]:
    """Folders of models below a folder, as a trainer's checkpoints or the hub's snapshots."""
    configs = [config for depth in ("*", "snapshots/*") for config in sorted(path.glob(f"{depth}/config.json"))[:MANY]]
    return [f"'{config.parent}'" for config in configs if any(config.parent.glob("*.safetensors"))][:3]


def _other_weights(names: list[str]) -> str:
    """A sentence about weights in another form."""
    for suffixes, what in (
        ((".bin", ".pt", ".pth", ".ckpt"), f"is a pickle, and {PICKLE}"),
        (
            (".distcp",),
            "is of a distributed checkpoint: put it together, and save the model with save_pretrained",
        ),
        ((".h5", ".msgpack", ".pb", ".keras"), "is of TensorFlow or JAX: save the model in safetensors from there"),
        ((".onnx",), "cannot be pruned: give the network that it was made from"),
    ):
        other = [name for name in names if name.endswith(suffixes)]
        if other:
            return f" {other[0]} {what}."
    return ""
