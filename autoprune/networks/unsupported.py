"""Refuses live models that a search cannot run on, and takes the wrappers off of others. Each refusal is a sentence."""

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from autoprune.errors import UserError

FORMS = (
    "model takes a directory in Hugging Face form, a hub name, FILE.py:FUNCTION, or a live model: a PreTrainedModel of "
    "transformers, or a torch.nn.Module"
)
MOST_TOLD = 4
"""Hooks that a sentence names."""
FLOATS = ("torch.float32", "torch.float16", "torch.bfloat16", "torch.float64")


def unwrapped(model: Any) -> nn.Module:
    """The network inside of torch.compile, DataParallel or DistributedDataParallel.

    Raises:
        UserError: it is no network.
    """
    while isinstance(model, nn.Module):
        if hasattr(model, "_orig_mod"):  # torch.compile
            model = model._orig_mod
        elif type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            model = model.module
        else:
            return model
    raise UserError(f"{_what(model)}.")


def _what(model: Any) -> str:
    """What is no network, and the way out."""
    name = type(model).__qualname__
    if isinstance(model, type):
        return f"the model is the class {model.__name__}, not a trained network: give an object of it"
    if isinstance(model, Mapping) and any(isinstance(value, Tensor) for value in model.values()):
        return "the model is a dictionary of weights: load them into their network with load_state_dict, and give that"
    if isinstance(getattr(model, "model", None), nn.Module):
        more = ", tokenizer=PIPE.tokenizer" if getattr(model, "tokenizer", None) is not None else ""
        return f"the model is a {name}, which holds one: give that, as model=PIPE.model{more}"
    return f"the model is of the type {name}: {FORMS}"


def check_adapters(model: Any) -> None:
    """Refuse networks with adapters (PEFT) that are not merged."""
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(
            "the model has adapters (PEFT) that are not part of its weights: merge them first, "
            "model = model.merge_and_unload(), and give that."
        )


def check_place(model: nn.Module) -> None:
    """Refuse networks that are spread over several devices, or whose weights are not in memory."""
    tensors = dict(model.named_parameters())
    placed = sorted({str(device) for device in (getattr(model, "hf_device_map", None) or {}).values()})
    absent = [name for name, tensor in tensors.items() if tensor.is_meta]
    if absent or "disk" in placed:
        first = f", as {absent[0]}" if absent else ""
        raise UserError(
            f"weights of the model are not in memory{first} (they are on the device 'meta' or offloaded to disk): load "
            "it without device_map, or give its directory and device_memory=, as device_memory='8GiB'."
        )
    placed = placed if len(placed) > 1 else sorted({str(tensor.device) for tensor in tensors.values()})
    if len(placed) > 1:
        raise UserError(
            f"the model is spread over the devices {', '.join(placed)}, and a search runs on one: load it without "
            "device_map, or give its directory and device_memory=, which keeps in the host's memory what does not fit."
        )
    sharded = [name for name, tensor in tensors.items() if hasattr(tensor, "device_mesh")]
    if sharded or type(model).__name__ == "FullyShardedDataParallel":
        raise UserError(
            "the model is sharded over processes (FSDP or tensor parallel), and a search runs in one: gather its "
            "weights into a plain model first, as by saving and loading it."
        )


def check_floats(model: Any) -> None:
    """Refuse networks whose weights are packed or quantised."""
    quantizer = getattr(model, "hf_quantizer", None)
    method = getattr(getattr(quantizer, "quantization_config", None), "quant_method", None)
    odd = next((f"{name} of {_kind(one)}" for name, one in model.named_parameters() if _kind(one) not in FLOATS), None)
    packed = [name for name, one in model.named_modules() if "quantized" in type(one).__module__.split(".")]
    if method is None and odd is None and not packed:
        return
    why = str(getattr(method, "value", method)) if method else odd or f"{packed[0]} is quantised"
    raise UserError(
        f"the model is quantised ({why}), and packed weights cannot be cut: search on the network that it was made "
        "from and quantise what is exported."
    )


def _kind(parameter: Tensor) -> str:
    """The dtype of a parameter; the class of one that is packed in a way of its own."""
    kind = type(parameter.data)
    return str(parameter.dtype) if kind is Tensor or hasattr(parameter, "device_mesh") else kind.__name__


def unsaved_code(model: nn.Module) -> str | None:
    """What to tell of code that was put on a live model and that is no part of its class; None where there is none.

    Hooks of torch and transformers themselves do not count: their classes put them on again.
    """
    found = []
    for name, module in model.named_modules():
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        own = [hook for hook in hooks if _home(hook) not in ("torch", "transformers")]
        called = [f"the hook {getattr(hook, '__qualname__', type(hook).__name__)}" for hook in own]
        if "forward" in vars(module) and not hasattr(module, "_hf_hook"):  # accelerate's only moves tensors
            called.insert(0, "a forward of its own")
        found += [f"{one} on {name or 'the model'}" for one in called]
    if not found:
        return None
    more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    return (
        f"the model has code besides that of its classes: {', '.join(found[:MOST_TOLD])}{more}. A search is of the "
        "classes and the weights: this code may be missing in what it scores and in what it exports."
    )


def _home(function: Any) -> str:
    """The package that a function was written in."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__module__", "") or type(function).__module__).partition(".")[0]
