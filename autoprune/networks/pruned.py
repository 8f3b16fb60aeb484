"""Pruned networks as transformers models: the configuration and the classes that `from_pretrained` builds.

A pruned directory's `config.json` has `"model_type": "autoprune"`, the family's own type as `base_model_type`, every
field of the family at its dense value, and what is left of each layer in `per_layer_config`, in the schema of
transformers and ModelOpt:

    {"model_type": "autoprune", "base_model_type": "llama", "num_hidden_layers": 2, ...,
     "per_layer_config": {"0": {"num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 512},
                          "1": {"num_attention_heads": 0, "num_key_value_heads": 0, "intermediate_size": 96,
                                "skip": ["attention"]}}}

A `"linear": {"mlp": {"map": "rank", "rank": 16}}` beside `skip` says that a linear map, or a constant, stands where the
MLP was (cutting/replacing.py).

Stock transformers refuses the type. With autoprune imported, the family's own model class is built (without memory,
inside `from_pretrained`) and cut by the code that cut the live network. Every auto class that loads the dense network
loads the pruned one. The classes are made when they are asked for and belong to this module by name, so that models and
configurations can be pickled.

The mapping is kept from transformers' `HeterogeneousConfigMixin`: modelling code reads `config.num_attention_heads`,
which raises there as soon as layers differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from torch import nn
from transformers.configuration_utils import PreTrainedConfig

from autoprune.cutting.dense import materialise
from autoprune.cutting.live import LiveWidth
from autoprune.cutting.replacing import described, replace_as
from autoprune.cutting.widths import Width
from autoprune.networks.family import Family
from autoprune.networks.slots import cache_slots, layer_types, sharing_modes

MODEL_TYPE = "autoprune"
HINT = (
    "Layers of this network have widths of their own: `import autoprune` before it is loaded. README.md beside this "
    "file tells more, and names the uniform form, which needs no autoprune."
)
"""What `config.json` says under `how_to_load`, for whoever opens it."""

LayerConfig = Mapping[str, Any]
"""Configuration attribute -> the layer's own value; `skip`: kinds of which nothing is kept; `linear`: what is there."""


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
        return pruned_config(base).from_dict(config_dict, **kwargs)


class PrunedFields:
    """Goes in front of a family's configuration class: keeps `per_layer_config`, and writes it back."""

    base_model_type: str
    layer_configs: tuple[LayerConfig, ...]

    def __post_init__(self, **kwargs: Any) -> None:
        layers = kwargs.pop("per_layer_config", None) or {}
        kwargs.pop("base_model_type", None)
        kwargs.pop("how_to_load", None)
        super().__post_init__(**kwargs)  # type: ignore[misc]
        self.layer_configs = tuple(layers[key] for key in sorted(layers, key=int))

    @property
    def attends(self) -> list[bool]:
        """Whether something of its attention is left, of each layer."""
        return ["attention" not in layer.get("skip", ()) for layer in self.layer_configs]

    @property
    def kv_sharing_modes(self) -> list[str | None]:
        """Where transformers asks which slots of a cache hold nothing of their own."""
        return sharing_modes(self.attends, layer_types(self))

    def to_dict(self) -> dict[str, Any]:
        """As in `config.json`."""
        output: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        output["base_model_type"] = self.base_model_type
        output["how_to_load"] = HINT
        output["per_layer_config"] = per_layer_config(output.pop("layer_configs", ()))
        return output


class PrunedModel:
    """Goes in front of a family's model class: builds it dense, then cuts it to its configuration."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg] # of the class behind this one
        base: Any = getattr(self, "base_model")
        if base is self or not isinstance(base, PrunedModel):  # heads that are one code for all types ask for it pruned
            cut(base, config)

    def _get_static_cache_init_shape(self) -> None:
        """Static caches take each layer's shape from its first keys: layers differ."""
        return None

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers does, where its pages fit.

        Raises:
            ValueError: layers have fewer KV heads than the dense network.
        """
        config: Any = getattr(self, "config")
        dense = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        heads = {
            layer.get("num_key_value_heads", layer.get("num_attention_heads", dense))
            for layer, attends in zip(config.layer_configs, config.attends, strict=True)
            if attends
        }
        if heads != {dense}:
            raise ValueError(
                f"continuous batching has pages for {dense} KV heads in every layer, and layers of this pruned network "
                f"keep {', '.join(map(str, sorted(heads)))}: use `generate`, or the form that `autoprune export "
                "--uniform` writes."
            )
        return super().init_continuous_batching(*args, **kwargs)  # type: ignore[misc]


# -- classes -----------------------------------------------------------------------------------------------------


@cache
def pruned_config(base_model_type: str) -> Any:
    """The configuration class of pruned models of a type, known to every auto class that knows the type.

    Raises:
        UserError: no family covers the type.
    """
    from transformers import CONFIG_MAPPING

    from autoprune.networks.loading import family_of

    family_of(base_model_type)
    base = CONFIG_MAPPING[base_model_type]
    own = {"__module__": __name__, "model_type": MODEL_TYPE, "base_model_type": base_model_type}
    config_class = type(f"Pruned{base.__name__}", (PrunedFields, base), own)
    for mapping in _auto_mappings():
        found = mapping.get(base, None)
        if found is not None:
            several = isinstance(found, tuple)  # of DeiT one with a distillation head and one without
            classes = tuple(_pruned_model(model, config_class) for model in (found if several else (found,)))
            mapping.register(config_class, classes if several else classes[0])
    return config_class


@cache
def pruned_model(model_class: Any) -> Any:
    """The class of pruned models whose dense ones are of a class of transformers."""
    return _pruned_model(model_class, pruned_config(model_class.config_class.model_type))


@cache
def _pruned_model(model_class: Any, config_class: Any) -> Any:
    from transformers import conversion_mapping

    named, base = model_class.__name__, config_class.base_model_type
    own = {"__module__": __name__, "config_class": config_class} | _prefix(model_class, config_class)
    # transformers renames weights of older checkpoints by the name of the class, or of the type
    known = conversion_mapping.get_checkpoint_conversion_mapping
    renamed = known(named) or known(base)
    if renamed:
        conversion_mapping.register_checkpoint_conversion_mapping(f"Pruned{named}", renamed, overwrite=True)
    return type(f"Pruned{named}", (PrunedModel, model_class), own)


def _prefix(model_class: Any, config_class: Any) -> dict[str, str]:
    """The name of the body in a head that takes any name, if it is not that of checkpoints.

    Question heads of several types call it `transformer`, and their body would stay random.
    """
    from transformers import MODEL_MAPPING
    from transformers.modeling_layers import GenericForQuestionAnswering

    if not issubclass(model_class, GenericForQuestionAnswering):
        return {}
    return {"base_model_prefix": MODEL_MAPPING[config_class.__mro__[2]].base_model_prefix}


def _auto_mappings() -> list[Any]:
    """From configuration to model class, of each auto class of transformers."""
    from transformers.models.auto import modeling_auto

    mappings = [
        getattr(auto, "_model_mapping", None) for auto in vars(modeling_auto).values() if isinstance(auto, type)
    ]
    return [mapping for mapping in mappings if mapping is not None]


def __getattr__(name: str) -> Any:
    """The class of that name, which a pickle asks for before any network was loaded."""
    from transformers import CONFIG_MAPPING

    from autoprune.networks.loading import model_types

    stem = name.removeprefix("Pruned")
    if stem != name:
        for model_type in model_types():
            base = CONFIG_MAPPING[model_type]
            if base.__name__ == stem:
                return pruned_config(model_type)
            for mapping in _auto_mappings():
                named = mapping._model_mapping.get(model_type)
                if stem in (named if isinstance(named, tuple) else (named,)):
                    found = mapping[base]
                    models = found if isinstance(found, tuple) else (found,)
                    return pruned_model(next(model for model in models if model.__name__ == stem))
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


# -- configurations ----------------------------------------------------------------------------------------------


def per_layer_config(layers: Sequence[LayerConfig]) -> dict[str, dict[str, Any]]:
    """The mapping of `config.json`; keys are padded with zeros so that they sort as numbers, as transformers does."""
    digits = len(str(max(0, len(layers) - 1)))
    return {str(i).zfill(digits): dict(layer) for i, layer in enumerate(layers)}


def layer_config(widths: Sequence[LiveWidth]) -> LayerConfig:
    """What is left of a layer."""
    values: dict[str, Any] = {
        name: value for width in widths for name, value in width.width.config_of(width.kept).items()
    }
    skip = sorted(width.width.kind for width in widths if width.kept == 0)
    linear = {width.width.kind: said for width in widths if (said := described(width)) is not None}
    return values | ({"skip": skip} if skip else {}) | ({"linear": linear} if linear else {})


def cut(model: Any, config: Any) -> None:
    """Cut the dense base model of a family, the one without a head, to its pruned configuration, in place.

    Raises:
        ValueError: the configuration does not fit the model.
    """
    from autoprune.networks.loading import family_of

    family: Family = family_of(config.base_model_type)
    # paths of families begin at the model with its head
    paths = replace(family, blocks=family.blocks.partition(".")[2]).paths(model)
    blocks = [model.get_submodule(path) for path in paths]
    layers: tuple[LayerConfig, ...] = config.layer_configs
    if len(layers) != len(blocks):
        raise ValueError(f"`per_layer_config` describes {len(layers)} layers, and the model has {len(blocks)}.")
    for index, (block, layer) in enumerate(zip(blocks, layers, strict=True)):
        for width in family.widths_of(block, config):
            live = LiveWidth(block, width)
            live.keep(_kept_groups(width, layer, index))
            if width.kind in layer.get("linear", {}):
                _replace(live, layer["linear"][width.kind], index)
        materialise(block)
    if family.task == "text":
        _number_caches(blocks, config, family.attention)


def _replace(live: LiveWidth, said: Any, index: int) -> None:
    try:
        if live.kept:
            raise ValueError(f"{live.kept} groups of the {live.width.kind} are kept")
        replace_as(live, said)
    except ValueError as error:
        raise ValueError(f"`per_layer_config` of layer {index} has a `linear` that does not fit: {error}.") from None


def _number_caches(blocks: Sequence[nn.Module], config: Any, attention: str) -> None:
    slots = cache_slots(config.attends, layer_types(config))
    for block, attending, slot in zip(blocks, config.attends, slots, strict=True):
        if attending:
            module: Any = block.get_submodule(attention)
            module.layer_idx = slot


def _kept_groups(width: Width, layer: LayerConfig, index: int) -> int:
    if width.kind in layer.get("skip", ()):
        return 0
    dense = width.config_of(width.groups)
    given = {name: layer.get(name, value) for name, value in dense.items()}
    name, per_group = next(iter(width.config.items()))
    groups: int = given[name] // per_group
    if not width.can_keep(groups) or given != width.config_of(groups):
        raise ValueError(f"`per_layer_config` of layer {index} does not fit its {width.kind}: {dict(layer)}.")
    return groups
