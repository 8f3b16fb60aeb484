"""Measures a saved network: loss, perplexity, size and speed of a directory, dense, pruned or padded."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoprune.calibration.losses import CrossEntropy
from autoprune.data.text import next_tokens, read_texts
from autoprune.data_names import Wanted
from autoprune.errors import UserError
from autoprune.evaluation.counting import macs_per_token
from autoprune.evaluation.timing import speeds
from autoprune.files.reading import DAMAGE, read_json
from autoprune.networks import pretrained
from autoprune.networks.checks import check_config, check_weights
from autoprune.networks.loading import compute_dtype, explained
from autoprune.networks.recognise import check_directory
from autoprune.tasks.causal_lm import CausalLM


def evaluate_directory(
    path: Path,
    data: Wanted | str | None,
    sequence_length: int,
    max_sequences: int | None,
    device: str = "cpu",
    dtype: str = "auto",
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> dict[str, Any]:
    """Measure a network in Hugging Face form on a text, with the loss that searches report.

    Args:
        path: the directory, exported or not. Its model type need not have a search space.
        data: a name of data, as `autoprune search --data` takes; None is Python's own documentation.
        sequence_length: number of tokens in a sequence.
        max_sequences: limit on the number of sequences, from the start of the text; None is all.
        device: torch device.
        dtype: data type to compute in; `auto` is float32 on a CPU and the checkpoint's own on a GPU.
        progress: called with the stage and the share of it that is done.

    Returns:
        `path`; `cross_entropy` in nats per token (mean over a sequence's predictions, then over sequences) and its
        exponential `perplexity`; `params`, tied ones once; `macs_per_token` of the whole network at that length;
        `bytes` of the weights on disk; `tokens` that were read; `tokens_per_second` over one sequence,
        and their `speed_spread` (timing.py).

    Raises:
        UserError: the network or the text is missing, or the sequences do not fit them.
    """
    texts = read_texts(data)
    progress("loading the model", 0.0)
    model, tokenizer = _load(path, device, dtype)
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and sequence_length > longest:
        raise UserError(f"sequence_length={sequence_length} is beyond the model's {longest} positions.")
    tokens_NT = texts.tokens(tokenizer, sequence_length)[:max_sequences].to(device)
    losses = []
    for n in range(len(tokens_NT)):
        progress("measuring", n / len(tokens_NT))
        losses.append(_cross_entropy(model, tokens_NT[[n]]))
    loss = float(torch.stack(losses).mean())

    def run(tokens_BT: Tensor) -> object:
        return model(input_ids=tokens_BT, use_cache=False)

    (timed,) = speeds([lambda: None], run, tokens_NT[:1], partial(progress, "timing"))
    return {
        "path": str(path),
        "cross_entropy": loss,
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "params": model.num_parameters(),
        "macs_per_token": macs_per_token(run, device, sequence_length),
        "bytes": sum(file.stat().st_size for file in path.glob("*.safetensors")),
        "tokens": tokens_NT.numel(),
        "tokens_per_second": timed.per_second,
        "speed_spread": timed.spread,
    }


def _format(path: Path) -> str | None:
    """What an exporter of ours calls the form of a directory, where it is not Hugging Face's."""
    try:
        return str(read_json(path / "config.json")["format"])
    except (OSError, *DAMAGE):  # loading it will tell
        return None


@torch.no_grad()
def _cross_entropy(model: Any, tokens_1T: Tensor) -> Tensor:
    loss = CrossEntropy()
    logits_1TV = model(input_ids=tokens_1T, use_cache=False).logits
    return loss.measure(logits_1TV, loss.prepare(logits_1TV, next_tokens(tokens_1T))).double().squeeze(0)


def _load(path: Path, device: str, dtype: str) -> tuple[Any, Any]:
    if not path.exists():
        raise UserError(f"no model directory at '{path}'.")
    if _format(path) in ("autoprune.module/1", "autoprune.onnx/1"):
        raise UserError(
            f"'{path}' is no language model in Hugging Face form: `autoprune evaluate RUN` measures any run's policy."
        )
    check_directory(str(path))
    with explained(str(path)):
        config = pretrained.load(pretrained.CONFIG, str(path))
        check_config(str(path), config)
        checkpoint = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
        compute = compute_dtype(dtype, device, checkpoint)
        model, report = pretrained.load(CausalLM.auto_class, str(path), dtype=compute, output_loading_info=True)
        tokenizer = pretrained.load(pretrained.TOKENIZER, str(path))
        model = model.to(device).eval().requires_grad_(False)
    check_weights(str(path), model, report)
    return model, tokenizer
