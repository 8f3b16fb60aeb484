"""Refuses checkpoints that are quantised, described as cut, or have other weights than their class."""

from typing import Any

from torch import nn

from autoprune.errors import UserError

MATRICES = ("Linear", "Conv1D", "Conv2d", "Embedding")
TASKS = ("ForCausalLM", "LMHeadModel", "ForImageClassification")
"""In the names of transformers' classes that do what we read."""


def check_config(path: str, config: Any) -> None:
    """Refuse a configuration with entries for single layers, which no class of ours reads.

    Args:
        path: for the message.
        config: as transformers reads it.

    Raises:
        UserError: transformers would load another network than the one that is described.
    """
    told = config.to_dict().get("per_layer_config") or {}
    if told and getattr(config, "base_model_type", None) is None:
        layer, entry = min(told.items(), key=lambda item: int(item[0]))
        raise UserError(
            f"the config.json of '{path}' has a per_layer_config (of layer {layer}: {dict(entry)}), which the class of "
            f"'{config.model_type}' does not read: it would be another network. If the weights are those of a dense "
            "network, remove that entry; if not, give the network that they were cut from."
        )


def dequantising(path: str, config: Any) -> dict[str, Any]:
    """Options of `from_pretrained` that turn the weights of a quantised checkpoint into plain floats; none for others.

    Of FP8 with scales, which transformers multiplies out on any device. Other methods need their own kernels and
    devices, or are given up in silence.

    Raises:
        UserError: it is quantised by another method.
    """
    method = _quantisation(config)
    if method is None:
        return {}
    if method.split(",")[0] == "fp8":
        from transformers import FineGrainedFP8Config

        return {"quantization_config": FineGrainedFP8Config(dequantize=True)}
    way = "AutoModelForCausalLM.from_pretrained(...).dequantize().save_pretrained(...)"
    raise UserError(
        f"'{path}' is quantised ({method}), and packed weights cannot be cut: search on the network that it was made "
        "from and quantise what is exported"
        + (f", or dequantise it first ({way})." if method.startswith("bitsandbytes") else ".")
    )


def check_task(path: str, config: Any) -> None:
    """Refuse models that are neither causal language models nor image classifiers, such as encoders.

    Raises:
        UserError: the checkpoint was written by another class than those.
    """
    written = list(getattr(config, "architectures", None) or ())
    if written and not any(task in name for name in written for task in TASKS):
        raise UserError(
            f"'{path}' holds a {written[0]}, which is neither a causal language model nor a classifier of images. "
            "Encoders, sequence-to-sequence networks and models of other tasks are not supported."
        )


def check_weights(path: str, model: nn.Module, report: Any) -> None:
    """Refuse weights that are not those of the class.

    Args:
        path: for the message.
        model: what transformers has built.
        report: its loading information.

    Raises:
        UserError: weights are missing, or matrices have companions that nobody reads, as scales or biases.
    """
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing:
        check_task(path, model.config)
        raise UserError(f"'{path}' lacks {len(missing)} weights of its own architecture, as {missing[0]}.")
    matrices = {name for name, module in model.named_modules() if type(module).__name__ in MATRICES}
    ignored = [key for key in unexpected if key.rpartition(".")[0] in matrices]
    if ignored:
        raise UserError(
            f"'{path}' holds {len(ignored)} tensors beside weights that a {type(model).__name__} does not read, as "
            f"{ignored[0]}: its config.json is not that of these weights, or they are quantised."
        )


def _quantisation(config: Any) -> str | None:
    """The method by which a checkpoint was quantised, in a word or two; None where it was not."""
    told: Any = getattr(config, "quantization_config", None) or getattr(config, "compression_config", None)
    if not told:
        return None
    told = told if isinstance(told, dict) else told.to_dict()
    bits = next((bits for bits in (4, 8) if told.get(f"load_in_{bits}bit")), told.get("bits"))
    method = str(getattr(told.get("quant_method"), "value", told.get("quant_method")) or "an unnamed method")
    return f"{method}, {bits} bit" if bits else method
