"""Whether onnxruntime, on the CPU, gives the logits of the network that a graph was made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import UserError

TOLERANCE = 1e-4
"""Largest difference of logits, as a share of the largest logit. Sums of float32 in another order give 1e-6 to 1e-5;
a wrong mask or a dimension that was fixed while tracing gives some 0.1."""
OTHERWISE = "nothing was written, export it in another form (autoprune list exporters)."


@torch.no_grad()
def checked(file: Path, network: nn.Module, samples: Sequence[Tensor]) -> dict[str, Any]:
    """Run both on samples of several shapes.

    Args:
        file: the graph, which has one input and one output.
        network: takes a sample and returns logits, in float32 on the CPU.
        samples: what both read.

    Returns:
        `runtime`, `shapes` of the samples, `largest_difference`, `largest_logit`, and `classes`, the last dimension of
        logits.

    Raises:
        UserError: onnxruntime does not run the graph, or logits differ by more than the tolerance.
    """
    import onnxruntime

    expected = [network(sample) for sample in samples]
    try:
        given = _run(file, samples)
    except Exception as error:  # its own types, one for each status
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"onnxruntime does not run the ONNX graph ({reason}): {OTHERWISE}") from error
    found = [_compared(sample, a, b) for sample, a, b in zip(samples, expected, given, strict=True)]
    return {
        "runtime": f"onnxruntime {onnxruntime.__version__}, CPU",
        "shapes": [list(sample.shape) for sample in samples],
        "largest_difference": max(apart for apart, _ in found),
        "largest_logit": max(largest for _, largest in found),
        "classes": expected[0].shape[-1],
    }


def _run(file: Path, samples: Sequence[Tensor]) -> list[Tensor]:
    """What onnxruntime gives for each sample."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return [torch.from_numpy(session.run(None, {entry.name: sample.numpy()})[0]) for sample in samples]


def _compared(sample: Tensor, expected: Tensor, given: Tensor) -> tuple[float, float]:
    """Largest difference of the logits of one sample, and the largest logit, both absolute."""
    if given.shape != expected.shape:
        raise UserError(f"the ONNX graph gives {list(given.shape)}, the network {list(expected.shape)}: {OTHERWISE}")
    apart, largest = float((given - expected).abs().max()), float(expected.abs().max())
    if not apart <= TOLERANCE * largest:  # so that NaN is refused
        raise UserError(
            f"the ONNX graph's logits differ from the pruned network's by {apart:.3g} on {list(sample.shape)}, where "
            f"the largest is {largest:.3g}: {OTHERWISE}"
        )
    return apart, largest
