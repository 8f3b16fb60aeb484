"""Rotary positions in a GGUF file: their base, and how they are scaled for longer contexts."""

from typing import Any

import torch
from torch import Tensor

from autoprune.errors import UserError

FREQUENCIES = "rope_freqs.weight"
FULL, SLIDING = "full_attention", "sliding_attention"


def add_positions(writer: Any, config: Any) -> None:
    """Add the base of the frequencies and their scaling.

    Args:
        writer: a `gguf.GGUFWriter`.
        config: the network's configuration, with `rope_parameters` as transformers has them: of all layers, or by the
            type of a layer.

    Raises:
        UserError: they are scaled in a way that this exporter does not write.
    """
    import gguf

    parameters = _of_full(config)
    writer.add_rope_freq_base(float(parameters["rope_theta"]))
    if FULL in config.rope_parameters:
        writer.add_float32("gemma3.rope.freq_base_swa", float(config.rope_parameters[SLIDING]["rope_theta"]))
    kind = parameters.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(parameters["factor"]))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(parameters["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(parameters["original_max_position_embeddings"]))
    elif kind not in ("default", "llama3"):
        raise UserError(f"positions of the kind '{kind}' have no place in a GGUF file yet: use --to hf.")


def frequencies(config: Any, width: int) -> Tensor | None:
    """What llama.cpp divides each frequency by, `[width / 2]`; None where they are as the base gives them.

    Args:
        config: the network's configuration.
        width: numbers of a head.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = _of_full(config)
    if parameters.get("rope_type") != "llama3":
        return None
    scaled: Tensor = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0]
    plain = float(parameters["rope_theta"]) ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    return plain / scaled


def _of_full(config: Any) -> Any:
    parameters = config.rope_parameters
    return parameters.get(FULL, parameters)
