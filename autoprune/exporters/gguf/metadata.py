"""What a GGUF file says of a network besides its weights: sizes, norms, positions, and where it came from."""

from collections.abc import Sequence
from typing import Any

from autoprune.exporters.gguf.architectures import Architecture, LayerConfig
from autoprune.exporters.gguf.positions import add_positions
from autoprune.exporters.gguf.tensors import empty_heads, feed_forward, head_width
from autoprune.policy import Policy, to_json


def add_metadata(
    writer: Any, architecture: Architecture, config: Any, layers: Sequence[LayerConfig], policy: Policy
) -> None:
    """Add the keys that llama.cpp reads, and the policy under `autoprune.policy`.

    Args:
        writer: a `gguf.GGUFWriter`.
        architecture: from `architecture_of`.
        config: the network's configuration; where layers are equal, theirs.
        layers: what is left of each layer.
        policy: that the network was cut to.

    Raises:
        UserError: the positions are scaled in a way that this exporter does not write.
    """
    writer.add_name(f"{architecture.name} pruned by autoprune")
    writer.add_string("autoprune.policy", to_json(policy.model_dump(by_alias=True)))
    writer.add_block_count(len(layers))
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    _add_widths(writer, architecture, config, layers)
    if architecture.positions:
        writer.add_context_length(config.n_positions)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    window = getattr(config, "sliding_window", None) if _slides(config) else None
    if architecture.name == "gemma3":
        writer.add_sliding_window(window)
        # without it llama.cpp goes by the number of a layer, which dropped layers shift
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
        window = None
    # an architecture without windows computes the same up to the length of one
    writer.add_context_length(min(config.max_position_embeddings, window or config.max_position_embeddings))
    width = head_width(config)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    add_positions(writer, config)


def _slides(config: Any) -> bool:
    return "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])


def _add_widths(writer: Any, architecture: Architecture, config: Any, layers: Sequence[LayerConfig]) -> None:
    """One number a layer for the architectures that read them, one number for the others."""
    if architecture.positions:
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_head_count(config.num_attention_heads)
        return
    heads = [_heads(architecture, config, layer, i) for i, layer in enumerate(layers)]
    columns = [[feed_forward(layer) for layer in layers], *map(list, zip(*heads, strict=True))]
    if architecture.name not in ("deci", "openelm"):
        columns = [column[0] for column in columns]
    writer.add_feed_forward_length(columns[0])
    writer.add_head_count(columns[1])
    writer.add_head_count_kv(columns[2])


def _heads(architecture: Architecture, config: Any, layer: LayerConfig, index: int) -> tuple[int, int]:
    """Query and KV heads that the file has of a layer."""
    if "attention" not in layer.get("skip", ()):
        queries = int(layer["num_attention_heads"])
        return queries, int(layer.get("num_key_value_heads", queries))
    return empty_heads(config) if architecture.fused or index == 0 else (0, 0)
