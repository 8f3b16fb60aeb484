"""The directory of a plain module: its weights, its removed parts, the policy, and a loader that only needs torch."""

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from autoprune import registry
from autoprune.assembly import Assembly
from autoprune.cards import loading
from autoprune.cards.card import write_card
from autoprune.cards.repeat import shared
from autoprune.config import SearchConfig, is_module
from autoprune.exporters import load_module
from autoprune.exporters.directory import check_target, neighbour
from autoprune.exporters.source import Source
from autoprune.level import form_of
from autoprune.policy import Policy
from autoprune.ports.exporter import Exporter
from autoprune.training.candidate import copied

FORMAT = "autoprune.module/1"
EXPORTED = {"zero": "zeros", "narrow": "narrow", "identity": "identity"}
"""From what a stand-in's name begins with to what the loader calls it."""


class Module(Exporter):
    """A policy's network in the module's own dtype.

    `model.safetensors`, `config.json` (the function that makes the dense module, and which parts are gone),
    `policy.json` and `load_module.py`, whose `load(dense_module)` gives the network.
    """

    writes_trained = True

    def refuses(self, config: SearchConfig) -> str | None:
        """A model in Hugging Face form is no plain module."""
        if is_module(config.model):
            return None
        name = f"'{config.model}'" if config.model else "the embedded model"
        return f"{name} is a Hugging Face model: export it with --to hf."

    def check(self, path: Path) -> None:
        """See that `path` is free, or an earlier export's."""
        check_target(path)

    def write(self, source: Source, path: Path) -> None:
        """Write the directory."""
        with source.pruned() as network:
            self.write_trained(source, network, path)

    def network(self, source: Source) -> nn.Module:
        """The module in memory of its own, in its own dtype."""
        with source.pruned():
            network = copied(source.assembly.placer)
        return network.to(source.assembly.loaded.checkpoint_dtype)

    def write_trained(self, source: Source, network: nn.Module, path: Path) -> None:
        """Write the same of a network that was cut to the policy and may have been trained since."""
        check_target(path)
        assembly, policy = source.assembly, source.policy
        dtype = assembly.loaded.checkpoint_dtype
        state = {
            name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().clone().contiguous()
            for name, tensor in network.state_dict().items()
        }
        function = registry.target("models", assembly.loaded.path)
        described = {"format": FORMAT, "function": function, "stand_ins": _stand_ins(assembly, policy)}
        with neighbour(path) as directory:
            save_file(state, directory / "model.safetensors")
            (directory / "config.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
            shutil.copy(load_module.__file__, directory / "load_module.py")
            policy.save(directory / "policy.json")
            count = sum(parameter.numel() for parameter in network.parameters())
            write_card(
                directory, loading.TRAINED_MODULE if source.recovery else loading.MODULE, source.config, policy,
                assembly.task.words, base=shared(function), auto=assembly.task.auto_class, parameters=count,
                dense=assembly.loaded.n_params, recovery=source.recovery,
            )  # fmt: skip


def _stand_ins(assembly: Assembly, policy: Policy) -> dict[str, str]:
    """Path -> what stands there in the place of a part that is gone."""
    blocks = [
        (block, width.width)
        for block, row in zip(assembly.view.blocks, assembly.view.widths, strict=True)
        for width in row
    ]
    return {
        _path(assembly.loaded.model, block, path): EXPORTED[stand_in.partition("-")[0]]
        for (block, width), unit in zip(blocks, policy.units, strict=True)
        if form_of(unit.as_level).drops(unit.as_level)
        for path, stand_in in width.on_drop.items()
    }


def _path(model: nn.Module, block: nn.Module, path: str) -> str:
    """The path in the model of what is, or was, at a path in a block: a traced block is no part of the model."""
    owner, _, name = path.rpartition(".")
    names = {id(module): found for found, module in model.named_modules()}
    return f"{names[id(block.get_submodule(owner))]}.{name}".lstrip(".")
