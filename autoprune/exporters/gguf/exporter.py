"""One GGUF file with the pruned network and its tokenizer, which llama.cpp and what is built on it load.

Layers that differ are written in an architecture of llama.cpp with one width a layer, where there is one for the
network's type (architectures.py). Otherwise they are padded with zeros to the widest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from autoprune.config import SearchConfig, is_module
from autoprune.errors import UserError
from autoprune.exporters.gguf.architectures import Architecture, LayerConfig, architecture_of, shifted
from autoprune.exporters.gguf.empty_layers import with_empty_layers
from autoprune.exporters.gguf.metadata import add_metadata
from autoprune.exporters.gguf.outtypes import check_outtype, stored_as
from autoprune.exporters.gguf.positions import FREQUENCIES, frequencies
from autoprune.exporters.gguf.tensors import head_width, tensors
from autoprune.exporters.gguf.vocabulary import add_vocabulary
from autoprune.exporters.huggingface import HuggingFace, layers_that_stay
from autoprune.exporters.source import Source
from autoprune.files.writing import replacing
from autoprune.ports.exporter import Exporter

MAGIC = b"GGUF"


@dataclass(frozen=True)
class Gguf(Exporter):
    """A policy's network as one GGUF file.

    Args:
        outtype: how weights are stored: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0.
        pre: llama.cpp's name of how the tokenizer splits text; by default it is recognised.
    """

    outtype: str = "f16"
    pre: str | None = None

    stage = "writing the GGUF file"

    def refuses(self, config: SearchConfig) -> str | None:
        """A plain module has no such form."""
        if is_module(config.model):
            return f"'{config.model}' is a plain module, which llama.cpp cannot run: export it with --to module."
        return None

    def check(self, path: Path) -> None:
        """See that the package is there, and that `path` is free, or an earlier export's.

        Raises:
            UserError: it is not.
        """
        check_outtype(self.outtype)
        try:
            import gguf  # noqa: F401
        except ImportError as error:
            raise UserError("GGUF files need the package gguf: pip install 'autoprune[gguf]'.") from error
        target = target_of(path)
        if target.exists() and not (target.is_file() and _begins_with(target, MAGIC)):
            raise UserError(f"'{target}' is no GGUF file, and is not replaced by one: choose another name.")

    def write(self, source: Source, path: Path) -> None:
        """Write the file.

        Raises:
            UserError: llama.cpp has no architecture or tokenizer for it, or the disk is full or not writable.
        """
        if source.tokenizer is None:
            raise UserError("llama.cpp runs language models, and this network reads no text: use --to onnx.")
        state, config, layers = _as_llama_cpp_takes_it(source)
        architecture = architecture_of(config, layers)
        assert architecture is not None
        target = target_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            self._write(temporary, architecture, config, layers, state, source)

    def _write(
        self,
        path: Path,
        architecture: Architecture,
        config: Any,
        layers: Sequence[LayerConfig],
        state: dict[str, Tensor],
        source: Source,
    ) -> None:
        import gguf

        writer = gguf.GGUFWriter(path, architecture.name)
        try:
            add_metadata(writer, architecture, config, layers, source.policy)
            writer.add_file_type(
                gguf.LlamaFileType[f"MOSTLY_{self.outtype.upper()}" if self.outtype != "f32" else "ALL_F32"]
            )
            add_vocabulary(writer, source.tokenizer, config.vocab_size, self.pre)
            for name, tensor in tensors(state, architecture, config, layers):
                _add_tensor(writer, name, tensor, stored_as(name, tuple(tensor.shape), self.outtype))
            factors = None if architecture.positions else frequencies(config, head_width(config))
            if factors is not None:
                _add_tensor(writer, FREQUENCIES, factors, "f32")
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def target_of(path: Path) -> Path:
    """The file that is written: in a directory it is `model.gguf`."""
    return path if path.suffix == ".gguf" else path / "model.gguf"


def _as_llama_cpp_takes_it(source: Source) -> tuple[dict[str, Tensor], Any, Sequence[LayerConfig]]:
    """The network's state, its configuration, and what is left of each layer: padded where it has to be."""
    network: Any = HuggingFace().network(source)
    layers: Sequence[LayerConfig] = network.config.layer_configs
    if architecture_of(network.config, layers) is None:
        network = HuggingFace(uniform=True).network(source)
        layers = [_shape(network.config)] * network.config.num_hidden_layers
    state, config = {name: tensor.to("cpu") for name, tensor in network.state_dict().items()}, network.config
    if shifted(config):
        with source.pruned():
            stays = layers_that_stay(source.assembly)
        state, config = with_empty_layers(state, config, stays, source.network.config)
        layers = [layers[0]] * config.num_hidden_layers
    return state, config, layers


def _shape(config: Any) -> LayerConfig:
    """What a stock configuration says of each of its layers."""
    names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def _add_tensor(writer: Any, name: str, tensor: Tensor, stored: str) -> None:
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType[stored.upper()]
    values = tensor.detach().float().contiguous().numpy()
    writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
