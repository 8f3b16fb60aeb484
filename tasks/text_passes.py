"""One forward pass of a workload on a language model with its present widths.

Prefill is a plain forward pass over `[B, T]` tokens, including the logits of all positions. Decode is a pass over
`[B, 1]` tokens after a cache of T positions. The cache is restored afterwards, so that every pass has the same length.
It is transformers' dynamic cache, which copies itself to grow at each token; this is part of the measured time.

Shapes: B sequences, T positions.
"""

import inspect
from typing import Any

import torch

from autoprune.budgets.passes import Pass, discard
from autoprune.errors import UserError
from autoprune.workload import Workload


@torch.no_grad()
def pass_of(model: Any, workload: Workload) -> Pass:
    """A forward pass of a transformers model with its present widths. Inputs and cache are made here.

    Raises:
        UserError: the model has fewer positions.
    """
    check_positions(model, workload)
    device = next(model.parameters()).device
    length = workload.context if workload.phase == "prefill" else 1
    tokens_BT = torch.zeros((workload.batch, length), dtype=torch.long, device=device)
    cache = _filled_cache(model, tokens_BT, workload.context) if workload.phase == "decode" else None
    if cache is None:
        return lambda: discard(model(input_ids=tokens_BT, use_cache=False))
    states = [(layer, dict(vars(layer))) for layer in cache.layers]

    def decode() -> None:
        _step(model, tokens_BT, cache)
        for layer, state in states:  # updates make new tensors: the old ones are as they were
            vars(layer).update(state)

    return decode


def check_positions(model: Any, workload: Workload) -> None:
    """Raise a UserError if a workload needs more positions than the model has."""
    longest = getattr(model.config, "max_position_embeddings", None)
    needed = workload.context + (workload.phase == "decode")
    if longest is not None and needed > longest:
        raise UserError(
            f"workload.context={workload.context} in {workload.phase} needs {needed} positions, and the model has "
            f"{longest}."
        )


def _filled_cache(model: Any, tokens_B1: torch.Tensor, context: int) -> Any:
    """A cache of `context` positions: those of one pass over one token, repeated. None where nothing attends."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    _step(model, tokens_B1, cache)
    attending = [i for i, layer in enumerate(cache.layers) if layer.keys is not None and layer.keys.numel()]
    for i in attending if context > 1 else ():
        keys, values = cache.layers[i].keys, cache.layers[i].values  # [B, H, 1, D]
        cache.update(
            keys.expand(-1, -1, context - 1, -1).contiguous(), values.expand(-1, -1, context - 1, -1).contiguous(), i
        )
    return cache if attending else None


def _step(model: Any, tokens_B1: torch.Tensor, cache: Any) -> None:
    """One token behind a cache, which grows; its argument has been renamed in transformers."""
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    model(input_ids=tokens_B1, use_cache=True, **{name: cache})
