"""Which architecture of llama.cpp holds a network, and what the file has to say of it.

llama.cpp builds most architectures from one width for all layers. A few read one width a layer: `deci` computes what
Llama does, `openelm` what Qwen3 does with tied embeddings. A network whose layers differ is written as one of these,
or padded with zeros to equal layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autoprune.errors import UserError

LayerConfig = Mapping[str, Any]

SILU, GELU_TANH, GELU_NEW = "silu", "gelu_pytorch_tanh", "gelu_new"


@dataclass(frozen=True)
class Architecture:
    """An architecture of llama.cpp.

    Args:
        name: as llama.cpp calls it.
        activation: of the feed-forward, the only one that it computes.
        per_layer: name of the architecture for layers that differ; None if there is none.
        permuted: whether query and key rows are in pairs, as its rotary embedding reads them.
        fused: whether queries, keys and values are one tensor.
        positions: whether positions are an embedding, which has no rotary key.
        norm_offset: what is added to the weights of norms, which Gemma stores less one.
        tied_only: whether it has no head of its own.
    """

    name: str
    activation: str = SILU
    per_layer: str | None = None
    permuted: bool = False
    fused: bool = False
    positions: bool = False
    norm_offset: float = 0.0
    tied_only: bool = False


BY_TYPE = {
    "llama": Architecture("llama", per_layer="deci", permuted=True),
    "mistral": Architecture("llama", per_layer="deci", permuted=True),
    "qwen2": Architecture("qwen2", per_layer="deci"),
    "qwen3": Architecture("qwen3", per_layer="openelm"),
    "gemma3_text": Architecture("gemma3", GELU_TANH, norm_offset=1.0),
    "gpt2": Architecture("gpt2", GELU_NEW, positions=True),
}
"""Model type of transformers -> the architecture for equal layers."""

PER_LAYER = {
    "deci": Architecture("deci", permuted=True),
    "openelm": Architecture("openelm", fused=True, tied_only=True),
}


def architecture_of(config: Any, layers: Sequence[LayerConfig]) -> Architecture | None:
    """The architecture for a network as it is; None where its layers have to be padded to one width first.

    Args:
        config: the network's configuration, as transformers has it.
        layers: what is left of each layer (`per_layer_config`).

    Raises:
        UserError: llama.cpp, or this exporter, has none.
    """
    found = _equal(config, len(layers))
    if even(layers):
        return found
    if found.per_layer is None:
        return None
    uneven = PER_LAYER[found.per_layer]
    if uneven.tied_only and not config.tie_word_embeddings:
        return None
    if uneven.fused and getattr(config, "attention_bias", False):
        return None
    return replace(uneven, activation=found.activation)


def layers_of(config: Any) -> Sequence[LayerConfig]:
    """What is left of each layer, by a pruned network's configuration or a stock one."""
    if hasattr(config, "layer_configs"):
        return tuple(config.layer_configs)
    names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    layer = {name: getattr(config, name) for name in names if hasattr(config, name)}
    return (layer,) * int(config.num_hidden_layers)


def type_of(config: Any) -> str:
    """The model type of the dense network."""
    return str(getattr(config, "base_model_type", None) or config.model_type)


def even(layers: Sequence[LayerConfig]) -> bool:
    """Whether all layers have one shape, and each has all of its parts."""
    return all(layer == layers[0] and not layer.get("skip") for layer in layers)


def _equal(config: Any, layers: int) -> Architecture:
    model_type = type_of(config)
    if model_type not in BY_TYPE:
        raise UserError(
            f"GGUF files are written of the model types {', '.join(sorted(BY_TYPE))}; this network's is "
            f"'{model_type}': use --to hf or --to onnx."
        )
    found = BY_TYPE[model_type]
    activation = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    activation = activation or getattr(config, "activation_function", None)
    if activation != found.activation:
        raise UserError(
            f"llama.cpp computes a '{model_type}' with the activation {found.activation}, and this one has "
            f"{activation}: use --to hf or --to onnx."
        )
    if not layers:
        raise UserError("llama.cpp loads no network without layers, and this policy drops every layer: keep one.")
    _check_windows(config, model_type)
    return found


def _check_windows(config: Any, model_type: str) -> None:
    """Raise a UserError where llama.cpp would give layers other windows of attention than they have."""
    types = getattr(config, "layer_types", None) or []
    if model_type != "gemma3_text" and "sliding_attention" in types and "full_attention" in types:
        raise UserError(
            f"llama.cpp gives every layer of a '{model_type}' the same window of attention, and here they differ: use "
            "--to hf or --to onnx."
        )
