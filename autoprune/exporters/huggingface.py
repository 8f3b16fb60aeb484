"""A directory that `from_pretrained` loads: the pruned network, its tokenizer, and the policy it came from.

There are two forms. By default each layer has its own widths. This gives the smallest files, and transformers loads
them after `import autoprune` (see autoprune/networks/pruned.py). With `uniform=True`, layers are padded with zeros to
the widest. This is a stock model of the original type, which transformers loads without autoprune. Both forms leave out
layers that are dropped completely.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.assembly import Assembly
from autoprune.cards import loading
from autoprune.cards.card import write_card
from autoprune.cards.loading import Form
from autoprune.config import SearchConfig, is_module
from autoprune.exporters import padding
from autoprune.exporters.constants import as_biases, check, constants_of, new_biases
from autoprune.exporters.directory import check_target, neighbour
from autoprune.exporters.source import Source
from autoprune.levels.form import live_form
from autoprune.networks import pretrained
from autoprune.networks.pruned import layer_config, per_layer_config, pruned_model
from autoprune.networks.quiet import without_bars
from autoprune.networks.slots import can_cache, layer_types
from autoprune.ports.exporter import Exporter


@dataclass(frozen=True)
class HuggingFace(Exporter):
    """A policy's network in the checkpoint's dtype.

    Args:
        uniform: pad with zeros to a stock model.
    """

    uniform: bool = False

    writes_trained = True

    @property
    def padding(self) -> str | None:
        """Layers of the uniform form are padded."""
        return "layers are padded to the widest of them. Without uniform" if self.uniform else None

    def refuses(self, config: SearchConfig) -> str | None:
        """A plain module has no such form."""
        if is_module(config.model):
            return f"'{config.model}' is a plain module and has no Hugging Face form: export it with --to module."
        return None

    def check(self, path: Path) -> None:
        """See that `path` is free, or an earlier export's."""
        check_target(path)

    def write(self, source: Source, path: Path) -> None:
        """Write the directory.

        Raises:
            UserError: it cannot be written, or no stock model has this shape.
        """
        assembly = source.assembly
        with source.pruned() as live:
            uniform = self.uniform or _only_zeros(source)
            network = _uniform(assembly) if uniform else _pruned(assembly, live)
            _write(source, network, path, loading.UNIFORM if uniform else loading.NATIVE)

    def network(self, source: Source) -> nn.Module:
        """The model that `write` saves, in memory of its own."""
        assembly = source.assembly
        with source.pruned() as live:
            uniform = self.uniform or _only_zeros(source)
            shared = _uniform(assembly) if uniform else _pruned(assembly, live)
            state = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
        with pretrained.LOADING, without_bars():
            network: Any = type(shared).from_pretrained(  # which also fills what no state has, as a table of angles
                None, config=shared.config, state_dict=state, dtype=assembly.loaded.checkpoint_dtype
            )
        network.to(assembly.config.device)
        if getattr(live, "generation_config", None) is not None:
            network.generation_config = _generation_config(network, live)
        return network  # type: ignore[no-any-return]

    def write_trained(self, source: Source, network: nn.Module, path: Path) -> None:
        """Write the same of a network that was cut to the policy and trained since, its widths as they are."""
        check_target(path)
        with source.pruned():
            _write(source, _pruned(source.assembly, network), path, loading.TRAINED)


def _write(source: Source, network: Any, path: Path, form: Form) -> None:
    assembly, policy = source.assembly, source.policy
    with neighbour(path) as directory:
        with without_bars():
            network.save_pretrained(directory)
        if getattr(assembly.loaded.model, "generation_config", None) is not None:
            _save_generation_config(network, assembly.loaded.model, directory)
        assembly.task.save_preprocessing(assembly, directory)
        policy.save(directory / "policy.json")
        write_card(
            directory, form, source.config, policy, assembly.task.words, base=type(assembly.loaded.model).__name__,
            auto=assembly.task.auto_class, parameters=network.num_parameters(), dense=assembly.loaded.n_params,
            recovery=source.recovery,
        )  # fmt: skip


# -- the network to be saved -----------------------------------------------------------------------------------


def _pruned(assembly: Assembly, network: nn.Module) -> Any:
    """A model of the pruned class that shares the tensors of a network, which has the live one's widths."""
    stays = _layers_that_stay(assembly)
    config = _config_of_layers(assembly, stays)
    layers = [layer_config(assembly.view.widths[i]) for i in stays]
    if assembly.loaded.family.numbered:
        attends = ["attention" not in layer.get("skip", ()) for layer in layers]
        if not layers or not can_cache(attends, layer_types(config)):
            config.use_cache = False
    dense_class: Any = type(assembly.loaded.model)
    model_class = pruned_model(dense_class)
    config = model_class.config_class.from_dict(config.to_dict() | {"per_layer_config": per_layer_config(layers)})
    return _filled(model_class, config, _state(assembly, stays, network))


def _uniform(assembly: Assembly) -> Any:
    """A stock model of the original class, every layer padded to one width."""
    stays = _layers_that_stay(assembly)
    config = _config_of_layers(assembly, stays)
    model_class = type(assembly.loaded.model)
    constants = constants_of({i: assembly.view.widths[i] for i in stays})
    config = padding.pad(model_class, config, [assembly.view.widths[i] for i in stays])
    if not stays:
        config.use_cache = False
    check(constants, assembly.view)
    as_biases(constants, config)
    state = _state(assembly, stays, assembly.loaded.model)
    if constants:
        renumbered = [replace(one, layer=stays.index(one.layer)) for one in constants]
        new_biases(renumbered, model_class, config, assembly.loaded.family.blocks + ".", state)
    return _filled(model_class, config, state)


def _only_zeros(source: Source) -> bool:
    """Whether nothing of the dense shape is gone, so that zeros among the weights are all that differs."""
    levels = [(unit.as_level, unit.groups) for unit in source.policy.units]
    zeros = any(live_form(level).keeps_zeros for level, _ in levels)
    return zeros and all(level.kept == groups for level, groups in levels)


def _layers_that_stay(assembly: Assembly) -> list[int]:
    """Layers that still hold parameters. One that holds none passes its input on as it is.

    All of them where layers have no common number, as those of stages.
    """
    if not assembly.loaded.family.numbered:
        return list(range(len(assembly.view.blocks)))
    return [i for i, block in enumerate(assembly.view.blocks) if next(block.parameters(), None) is not None]


def _config_of_layers(assembly: Assembly, stays: list[int]) -> Any:
    """The configuration with these layers alone, in the checkpoint's dtype."""
    config: Any = copy.deepcopy(assembly.loaded.model.config)
    layers = len(assembly.view.blocks)
    config.dtype = assembly.loaded.checkpoint_dtype
    config.per_layer_config = None  # an empty one, which any class takes
    if not assembly.loaded.family.numbered:
        return config
    config.num_hidden_layers = len(stays)
    for name, value in list(vars(config).items()):
        # layer_types, no_rope_layers, ...: one entry a layer
        if isinstance(value, list | tuple) and len(value) == layers and "layer" in name:
            setattr(config, name, [value[i] for i in stays])
    return config


def _state(assembly: Assembly, stays: list[int], model: nn.Module) -> dict[str, Tensor]:
    """A network's state as it stands, layers that stay numbered from 0, in the checkpoint's dtype."""
    prefix = assembly.loaded.family.blocks + "."
    dtype = assembly.loaded.checkpoint_dtype
    buffers = {name for name, _ in model.named_buffers()}
    numbers = {old: new for new, old in enumerate(stays)}
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(prefix):  # never where all layers stay
            index, _, rest = name.removeprefix(prefix).partition(".")
            if int(index) not in numbers:
                continue
            renamed = f"{prefix}{numbers[int(index)]}.{rest}"
        else:
            renamed = name
        state[renamed] = (tensor if name in buffers else tensor.to(dtype)).contiguous()
    return state


def _filled(model_class: Any, config: Any, state: dict[str, Tensor]) -> Any:
    """A model built without memory that takes `state` for its own."""
    with torch.device("meta"):
        model = model_class(config)
    assert isinstance(model, nn.Module)
    model.load_state_dict(state, assign=True)
    getattr(model, "tie_weights")()
    return model.eval()


def _save_generation_config(network: Any, live: Any, directory: Path) -> None:
    """Unchecked: transformers refuses to save some that it loads."""
    _generation_config(network, live).to_json_file(directory / "generation_config.json")


def _generation_config(network: Any, live: Any) -> Any:
    """As it was. No cache where none can be kept."""
    generation_config = copy.deepcopy(live.generation_config)
    if not getattr(network.config, "use_cache", True):
        generation_config.use_cache = False
    return generation_config
