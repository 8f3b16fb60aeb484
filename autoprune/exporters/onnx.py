"""A directory with the pruned network as one ONNX graph, which runtimes load without Python, torch or autoprune.

The graph is in float32, whatever the checkpoint's dtype. The task defines the input: token numbers for a language
model, without a cache of keys and values, or normalised pixels for an image network. The output is logits. Dropped
parts leave no weights and no matrix products. Before the directory is put in its place, onnxruntime must reproduce the
pruned network's logits (autoprune/exporters/onnx_check.py).

`config.json` says what goes in and comes out:

    {"format": "autoprune.onnx/1", "file": "model.onnx", "opset": 20,
     "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "sequence"]}],      strings: any size
     "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", "sequence", 32000]}],
     "checkpoint_dtype": "bfloat16",
     "notes": [...],                                        what a user of the graph has to know, a sentence each
     "normalisation": {"scale": 255, "mean": [...], "std": [...]},      of images: (value / scale - mean) / std
     "check": {"runtime": ..., "shapes": [...], "largest_difference": ..., "largest_logit": ..., "tolerance": ...}}

Shapes: B sequences, T tokens, N images, C channels, V vocabulary or classes.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.cards import loading
from autoprune.cards.card import write_card
from autoprune.errors import UserError
from autoprune.exporters.directory import check_target, neighbour
from autoprune.exporters.onnx_check import TOLERANCE, checked
from autoprune.exporters.source import Source
from autoprune.networks.images import logits_of
from autoprune.ports.exporter import Exporter
from autoprune.ports.task import GraphInput

FORMAT = "autoprune.onnx/1"
FILE = "model.onnx"


class Onnx(Exporter):
    """A policy's network as an ONNX graph in float32.

    `model.onnx` (with `model.onnx.data` beside it from 1.5 GiB on), `config.json`, `policy.json`, and what the task
    saves, as a tokenizer. The network is copied to the host's memory in float32, so there must be room for it, twice.
    """

    stage = "writing and checking the ONNX graph"

    def check(self, path: Path) -> None:
        """See that the packages are there, and that `path` is free, or an earlier export's."""
        _check_packages()
        check_target(path)

    def write(self, source: Source, path: Path) -> None:
        """Write the directory.

        Raises:
            UserError: the network cannot be traced, onnxruntime gives other logits, or it cannot be written.
        """
        assembly = source.assembly
        interface = assembly.task.graph_input(assembly)
        network = _Logits(_in_float32(source), interface.settings).eval()
        program = _traced(network, interface)
        with neighbour(path) as directory, _quiet():
            program.save(directory / FILE)
            check = checked(directory / FILE, network, interface.samples)
            described = _described(interface, check, program.model.opset_imports[""], assembly.loaded.checkpoint_dtype)
            (directory / "config.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
            source.policy.save(directory / "policy.json")
            count = sum(parameter.numel() for parameter in network.parameters())
            write_card(
                directory, loading.ONNX, source.config, source.policy, assembly.task.words, base=interface.name,
                auto=assembly.task.auto_class, parameters=count, dense=assembly.loaded.n_params,
            )  # fmt: skip
            assembly.task.save_preprocessing(assembly, directory)


def _described(interface: GraphInput, check: dict[str, Any], opset: int, dtype: torch.dtype) -> dict[str, Any]:
    """What `config.json` says; `dtype` is the checkpoint's."""
    example = interface.example
    shape: list[Any] = [interface.axes.get(d, size) for d, size in enumerate(example.shape)]
    logits = [*interface.axes.values(), check.pop("classes")]
    return {
        "format": FORMAT,
        "file": FILE,
        "opset": opset,
        "inputs": [{"name": interface.name, "dtype": _name(example.dtype), "shape": shape}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": logits}],
        "checkpoint_dtype": _name(dtype),
        "notes": ["Weights and results are float32, whatever the checkpoint is in.", *interface.notes],
        **interface.extra,
        "check": check | {"tolerance": TOLERANCE},
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# -- the graph -------------------------------------------------------------------------------------------------


class _Logits(nn.Module):
    """A network as a function of one tensor, with logits of one tensor."""

    def __init__(self, network: nn.Module, settings: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.settings = network, settings

    def forward(self, inputs: Tensor) -> Tensor:
        return logits_of(self.network(inputs, **self.settings))


def _in_float32(source: Source) -> nn.Module:
    """A policy's network in memory of its own, in float32 on the CPU; the live one is dense when this returns."""
    with source.pruned() as live:
        # what deepcopy takes for copied already: tensors, so that none is twice on the device
        memo: dict[int, Any] = {id(p): nn.Parameter(_float32(p), requires_grad=False) for p in live.parameters()}
        memo |= {id(b): _float32(b) for b in live.buffers()}
        return source.assembly.view.copied(memo)


def _float32(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)


def _traced(network: nn.Module, interface: GraphInput) -> Any:
    """The network as an ONNX program of torch's, free of the names of files here.

    Raises:
        UserError: it cannot be traced.
    """
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                network, (interface.example,), input_names=[interface.name], output_names=["logits"],
                dynamic_shapes=(interface.axes,), dynamo=True, verbose=False,
            )  # fmt: skip
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise UserError(f"torch cannot turn this network into an ONNX graph: {reason.rstrip('.')}.") from error
    graph = program.model.graph
    graph.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*graph.inputs, *graph.outputs, *(value for node in graph.all_nodes() for value in node.outputs)):
        value.metadata_props.clear()
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and onnxscript have to say about themselves."""
    level = logging.root.manager.disable
    logging.disable(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _check_packages() -> None:
    try:
        with _quiet():
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX graphs need onnx, onnxscript and onnxruntime ({error}): pip install 'autoprune[onnx]'."
        ) from error
