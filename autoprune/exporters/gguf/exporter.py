"""One GGUF file with the pruned network and its tokenizer, which llama.cpp and what is built on it load.

Layers that differ are written in an architecture of llama.cpp with one width a layer, where there is one for the
network's type (architectures.py). Otherwise they are padded with zeros to the widest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from autoprune.config import SearchConfig, is_module
from autoprune.errors import UserError
from autoprune.exporters.gguf.architectures import architecture_of, layers_of, type_of
from autoprune.exporters.gguf.metadata import add_metadata
from autoprune.exporters.gguf.outtypes import check_outtype, file_type, stored_as
from autoprune.exporters.gguf.positions import FREQUENCIES, frequencies
from autoprune.exporters.gguf.saved import saved
from autoprune.exporters.gguf.tensors import head_width, tensors
from autoprune.exporters.gguf.vocabulary import add_vocabulary
from autoprune.exporters.huggingface import HuggingFace
from autoprune.exporters.source import Source
from autoprune.files.writing import replacing
from autoprune.policy import Policy
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
    converts = True

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
        network: Any = HuggingFace().network(source)
        if architecture_of(network.config, layers_of(network.config)) is None:
            network = HuggingFace(uniform=True).network(source)
        self._write(network, source.tokenizer, source.policy, path)

    def convert(self, directory: Path, path: Path) -> None:
        """Write the file of a network that was exported in Hugging Face form.

        Raises:
            UserError: as `write`; or its layers would have to be padded.
        """
        policy, network, tokenizer = saved(directory)
        if architecture_of(network.config, layers_of(network.config)) is None:
            raise UserError(
                f"the layers of '{directory}' differ, and llama.cpp has no architecture for such a "
                f"'{type_of(network.config)}': export the run, which pads them with zeros."
            )
        self._write(network, tokenizer, policy, path)

    def _write(self, network: Any, tokenizer: Any, policy: Policy, path: Path) -> None:
        replaced = next((unit.name for unit in policy.units if unit.form == "linear"), None)
        if replaced:
            raise UserError(
                f"llama.cpp has no place for the constant or linear map where {replaced} was: export it with --to hf, "
                "or search without the form linear."
            )
        state, config = {name: tensor.to("cpu") for name, tensor in network.state_dict().items()}, network.config
        target = target_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            self._write_file(temporary, state, config, tokenizer, policy)
        if target != path:
            policy.save(path / "policy.json")

    def _write_file(self, path: Path, state: dict[str, Tensor], config: Any, tokenizer: Any, policy: Policy) -> None:
        import gguf

        layers = layers_of(config)
        architecture = architecture_of(config, layers)
        assert architecture is not None
        writer = gguf.GGUFWriter(path, architecture.name)
        try:
            add_metadata(writer, architecture, config, layers, policy)
            writer.add_file_type(gguf.LlamaFileType[file_type(self.outtype)])
            add_vocabulary(writer, tokenizer, config.vocab_size, self.pre)
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
    """The file that is written: in a directory it is `model.gguf`, with `policy.json` beside it."""
    return path if path.suffix == ".gguf" else path / "model.gguf"


def _add_tensor(writer: Any, name: str, tensor: Tensor, stored: str) -> None:
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType[stored.upper()]
    values = tensor.detach().float().contiguous().numpy()
    writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
