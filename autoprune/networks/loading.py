"""Loading a trained network and its tokenizer: a local directory, a hub name, or the embedded default."""

import hashlib
import json
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune import registry
from autoprune.errors import UserError
from autoprune.networks import pretrained
from autoprune.networks.checks import check_config, check_task, check_weights, dequantising
from autoprune.networks.family import Family
from autoprune.networks.recognise import check_directory

EMBEDDED = Path(__file__).parent.parent / "assets" / "tiny-llama"


@dataclass(frozen=True)
class LoadedModel:
    """A network, its tokenizer (None where it reads images) and where they came from.

    Args:
        checkpoint_dtype: dtype of the weights on disk. Exports have the same.
        n_params: parameters of the dense network, tied ones once.
        digest: hash of configuration and weights, which keys the level store and marks policies.
        notice: a sentence for the user about what was loaded.
    """

    model: nn.Module
    tokenizer: Any
    family: Family
    path: str
    checkpoint_dtype: torch.dtype
    n_params: int
    digest: str
    notice: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is a user's plain module and not a model of transformers."""
        return not hasattr(self.model, "save_pretrained")


def load_model(
    name: str | None,
    device: str = "cpu",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    home: str | None = None,
    task: str = "text",
    auto: str = "AutoModelForCausalLM",
    tokenizes: bool = True,
) -> LoadedModel:
    """Load a model of transformers for scoring, by default a causal language model.

    Args:
        name: a directory in Hugging Face form or a hub name; None is the embedded default.
        device: where it is computed.
        dtype: what to compute in; `auto` is float32 on a CPU and the checkpoint's own dtype on a GPU.
        trust_remote_code: run modelling code that ships with the weights. Off unless the user turns it on.
        home: where to put it; None is `device`.
        task: what it reads, as its family has it.
        auto: the auto class of transformers that loads it.
        tokenizes: whether it has a tokenizer.

    Raises:
        UserError: the model or its weights are missing, damaged or quantised, or no family covers the type.
    """
    path = str(EMBEDDED) if name is None else name
    check_directory(path)
    with explained(path):
        config = pretrained.load(pretrained.CONFIG, path, trust_remote_code)
    if config.model_type not in model_types():
        check_task(path, config)
    family = family_of(str(config.model_type))
    if family.task != task:
        raise UserError(_another_task(path, family))
    check_config(path, config)
    options = dequantising(path, config)
    checkpoint_dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    compute = compute_dtype(dtype, device, checkpoint_dtype)
    with explained(path):
        model, report = pretrained.load(
            auto, path, trust_remote_code, dtype=compute, output_loading_info=True, **options
        )
        tokenizer = pretrained.load(pretrained.TOKENIZER, path, trust_remote_code) if tokenizes else None
    check_weights(path, model, report)
    model = model.to(home or device).eval().requires_grad_(False)
    notice = (
        f"'{path}' is quantised: its weights were multiplied out to {str(checkpoint_dtype).removeprefix('torch.')}."
        if options
        else None
    )
    count = model.num_parameters()
    return LoadedModel(model, tokenizer, family, path, checkpoint_dtype, count, digest(model), notice)


def _another_task(path: str, family: Family) -> str:
    if family.task == "images":
        return (
            f"'{path}' holds a {family.name} that is no classifier of images, or is not here: download it, and see "
            'that its config.json names a "...ForImageClassification".'
        )
    return f"'{path}' holds a {family.name}, which reads no images."


def family_of(model_type: str) -> Family:
    """The family that covers a `model_type`.

    Raises:
        UserError: none does; names those that are covered and the file to add.
    """
    for family in families():
        if model_type in family.model_types:
            return family
    if model_type == "autoprune":
        raise UserError("this model is pruned already: search on the network that it was exported from.")
    covered = ", ".join(model_types())
    raise UserError(
        f"models of type '{model_type}' are not supported. Supported: {covered}. To add one: declare its widths in a "
        f"new file search_spaces/{model_type}.py (search_spaces/opt.py is a short example) and name it in registry.py."
    )


def families() -> list[Family]:
    """Those that are registered."""
    return [registry.load("families", name) for name in registry.names("families")]


def model_types() -> list[str]:
    """Every type of transformers models that a family covers, sorted."""
    return sorted(t for family in families() for t in family.model_types)


def digest(model: nn.Module) -> str:
    """Hash of a model's configuration and weights, 16 hex digits; reads every weight once."""
    config: Any = model.config
    described = {key: value for key, value in config.to_dict().items() if not key.startswith(("_", "transformers"))}
    described.pop("dtype", None)
    sha = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for name, tensor in sorted([*model.named_parameters(), *_statistics(model)], key=operator.itemgetter(0)):
        sha.update(name.encode())
        # bytes of the compute dtype: one model in float32 and in bfloat16 has two level stores
        sha.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]


def _statistics(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Buffers that BatchNorm has learned."""
    return ((name, buffer) for name, buffer in model.named_buffers() if name.rpartition(".")[2].startswith("running_"))


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what transformers and safetensors raise while loading `path` into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if Path(path).is_dir():
            raise UserError(f"the model in '{path}' could not be loaded: {first}") from error
        raise UserError(
            f"no model '{path}' here, and it could not be fetched from the hub ({first}). "
            "Give a local directory, or download it first."
        ) from error


def compute_dtype(dtype: str, device: str, checkpoint: torch.dtype) -> torch.dtype:
    """The dtype that `auto` or a name stands for; a UserError for an unknown name."""
    if dtype == "auto":
        return torch.float32 if device == "cpu" else checkpoint
    chosen = getattr(torch, dtype, None)
    if not isinstance(chosen, torch.dtype):
        raise UserError(f"no dtype is called '{dtype}': auto, float32, bfloat16 or float16.")
    return chosen
