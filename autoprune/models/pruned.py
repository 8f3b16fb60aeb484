"""Pruned networks as transformers models: the configuration and the classes that `from_pretrained` builds.

A pruned directory's `config.json` has `"model_type": "autoprune"`, the family's own type as `base_model_type`, every
field of the family at its dense value, and what is left of each layer in `per_layer_config`, in the schema of
transformers and ModelOpt:

    {"model_type": "autoprune", "base_model_type": "llama", "num_hidden_layers": 2, ...,
     "per_layer_config": {"0": {"num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 512},
                          "1": {"num_attention_heads": 0, "num_key_value_heads": 0, "intermediate_size": 96,
                                "skip": ["attention"]}}}

Stock transformers refuses the type. With autoprune imported, the family's own model class is built (without memory,
inside `from_pretrained`) and cut by the code that cut the live network.

The mapping is kept from transformers' `HeterogeneousConfigMixin`: modelling code reads `config.num_attention_heads`,
which raises there as soon as layers differ.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from torch import nn
from transformers.configuration_utils import PreTrainedConfig

from autoprune.models.family import Family
from autoprune.models.surgery import LiveWidth, materialise
from autoprune.models.widths import Width

MODEL_TYPE = "autoprune"

LayerConfig = Mapping[str, Any]
"""Configuration attribute -> the layer's own value; `skip`: kinds of which nothing is kept."""


class PrunedConfig(PreTrainedConfig):  # type: ignore[misc] # transformers is untyped here
    """What `AutoConfig` finds for `model_type` autoprune; it hands out the class made for the base type."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration in a file, an instance of a subclass of the family's own configuration.

        Raises:
            ValueError: no `base_model_type`.
        """
        base = config_dict.get("base_model_type")
        if not isinstance(base, str):
            raise ValueError("the configuration of a pruned model must name its `base_model_type`; this has none.")
        config_class, _ = pruned_classes(base)
        return config_class.from_dict(config_dict, **kwargs)


class PrunedFields:
    """Goes in front of a family's configuration class: keeps `per_layer_config`, and writes it back."""

    base_model_type: str
    layer_configs: tuple[LayerConfig, ...]

    def __post_init__(self, **kwargs: Any) -> None:
        layers = kwargs.pop("per_layer_config", None) or {}
        kwargs.pop("base_model_type", None)
        super().__post_init__(**kwargs)  # type: ignore[misc]
        self.layer_configs = tuple(layers[key] for key in sorted(layers, key=int))

    def to_dict(self) -> dict[str, Any]:
        """As in `config.json`."""
        output: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        output["base_model_type"] = self.base_model_type
        output["per_layer_config"] = per_layer_config(output.pop("layer_configs", ()))
        return output


class PrunedModel:
    """Goes in front of a family's model class: builds it dense, then cuts it to its configuration."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg] # of the class behind this one
        assert isinstance(self, nn.Module)
        cut(self, config)

    def _get_static_cache_init_shape(self) -> None:
        """Static caches take each layer's shape from its first keys: layers differ."""
        return None


@cache
def pruned_classes(base_model_type: str) -> tuple[Any, Any]:
    """(configuration class, model class) for pruned models of a type, known to transformers' auto class for its task.

    Raises:
        UserError: no family covers the type.
    """
    from transformers import CONFIG_MAPPING

    from autoprune.models.loading import family_of
    from autoprune.models.pretrained import auto_class

    auto = auto_class(family_of(base_model_type).task)
    base_config = CONFIG_MAPPING[base_model_type]
    base_model = auto._model_mapping[base_config]
    if isinstance(base_model, tuple):
        base_model = base_model[0]  # of DeiT the one without a distillation head comes first
    own: dict[str, Any] = {"__module__": __name__, "model_type": MODEL_TYPE, "base_model_type": base_model_type}
    config_class = type(f"Pruned{base_config.__name__}", (PrunedFields, base_config), own)
    own = {"__module__": __name__, "config_class": config_class}
    model_class = type(f"Pruned{base_model.__name__}", (PrunedModel, base_model), own)
    auto.register(config_class, model_class)
    return config_class, model_class


def per_layer_config(layers: Sequence[LayerConfig]) -> dict[str, dict[str, Any]]:
    """The mapping of `config.json`; keys are padded with zeros so that they sort as numbers, as transformers does."""
    digits = len(str(max(0, len(layers) - 1)))
    return {str(i).zfill(digits): dict(layer) for i, layer in enumerate(layers)}


def layer_config(widths: Sequence[LiveWidth]) -> LayerConfig:
    """What is left of a layer."""
    values: dict[str, Any] = {
        name: per_group * width.kept for width in widths for name, per_group in width.width.config.items()
    }
    skip = sorted(width.width.kind for width in widths if width.kept == 0)
    return values | ({"skip": skip} if skip else {})


def cut(model: nn.Module, config: Any) -> None:
    """Cut a dense model of a family to its pruned configuration, in place.

    Raises:
        ValueError: the configuration does not fit the model.
    """
    from autoprune.models.loading import family_of

    family: Family = family_of(config.base_model_type)
    blocks = [model.get_submodule(path) for path in family.paths(model)]
    layers: tuple[LayerConfig, ...] = config.layer_configs
    if len(layers) != len(blocks):
        raise ValueError(f"`per_layer_config` describes {len(layers)} layers, and the model has {len(blocks)}.")
    for index, (block, layer) in enumerate(zip(blocks, layers, strict=True)):
        for width in family.widths(block, config, 1):
            LiveWidth(block, width).keep(_kept_groups(width, layer, index))
        materialise(block)
    if family.task == "text":
        _number_caches(blocks, layers, config, family.attention)


def _number_caches(blocks: Sequence[nn.Module], layers: Sequence[LayerConfig], config: Any, attention: str) -> None:
    attends = ["attention" not in layer.get("skip", ()) for layer in layers]
    for block, attending, slot in zip(blocks, attends, cache_slots(attends, layer_types(config)), strict=True):
        if attending:
            module: Any = block.get_submodule(attention)
            module.layer_idx = slot


def _kept_groups(width: Width, layer: LayerConfig, index: int) -> int:
    if width.kind in layer.get("skip", ()):
        return 0
    kept = {layer.get(name, per_group * width.groups) / per_group for name, per_group in width.config.items()}
    groups = int(next(iter(kept)))
    if kept != {groups} or not 0 < groups <= width.groups:
        raise ValueError(f"`per_layer_config` of layer {index} does not fit its {width.kind}: {dict(layer)}.")
    return groups


# -- the cache of keys and values ------------------------------------------------------------------------------


def layer_types(config: Any) -> list[str]:
    """The attention type of every layer; models that do not tell have one."""
    return list(getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers)


def cache_slots(attends: Sequence[bool], types: Sequence[str]) -> list[int]:
    """The cache slot of every layer: those that attend take the first slots of their type.

    transformers makes a slot for each layer, by its type, and reads lengths from slot 0 and masks from a type's first
    slot: these must be slots that are written.
    """
    slots = [0] * len(types)
    for kind in dict.fromkeys(types):
        places = [i for i, other in enumerate(types) if other == kind]
        for slot, layer in zip(places, sorted(places, key=lambda i: not attends[i]), strict=True):
            slots[layer] = slot
    return slots


def can_cache(attends: Sequence[bool], types: Sequence[str]) -> bool:
    """Whether some layer attends from slot 0; without one, generation must go without a cache."""
    return any(attending and kind == types[0] for attending, kind in zip(attends, types, strict=True))
