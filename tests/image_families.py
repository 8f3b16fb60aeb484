"""Tiny random networks that read images, of every family, in which every weight and statistic counts."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from autoprune.data.images import ImageSet
from autoprune.networks.images import ImageView
from autoprune.networks.loading import family_of
from autoprune.networks.modules import family_of_module
from autoprune.networks.tracing import image_view
from tests import plain_networks

SIDE, CLASSES = 32, plain_networks.CLASSES

TRANSFORMER: dict[str, Any] = {
    "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 20, "num_hidden_layers": 3, "image_size": SIDE,
    "patch_size": 8,
}  # fmt: skip
RESNET: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [2, 1]}

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit", TRANSFORMER),
    "deit": ("deit", TRANSFORMER | {"qkv_bias": False}),
    "convnext": ("convnext", {"hidden_sizes": [8, 12, 16], "depths": [1, 2, 1], "num_stages": 3, "patch_size": 2}),
    "mobilenet-v2": ("mobilenet_v2", {"depth_multiplier": 0.25, "image_size": SIDE}),
    "mobilenet-v2-torch-padding": ("mobilenet_v2", {"depth_multiplier": 0.25, "tf_padding": False}),
    "resnet-basic": ("resnet", RESNET | {"layer_type": "basic"}),
    "resnet-bottleneck": ("resnet", RESNET | {"layer_type": "bottleneck"}),
}
"""Of transformers: name -> type and configuration."""

ARCHITECTURES = {"deit": "DeiTForImageClassification"}
"""Of types that transformers has two classes for."""

PLAIN = tuple(plain_networks.NETWORKS)


def names() -> list[str]:
    """All networks."""
    return [*NETWORKS, *PLAIN]


def tiny_model(name: str, seed: int = 0) -> Any:
    """A random network in float32 and evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name in PLAIN:
            model: Any = plain_networks.NETWORKS[name]()
        else:
            model_type, sizes = NETWORKS[name]
            config = CONFIG_MAPPING[model_type](**sizes, num_labels=CLASSES, attn_implementation="eager")
            config.architectures = [ARCHITECTURES.get(model_type)] if model_type in ARCHITECTURES else None
            model = AutoModelForImageClassification.from_config(config)
        for parameter in model.parameters():
            _randomise(parameter)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                _spread(module)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _randomise(parameter: nn.Parameter) -> None:
    """Matrices keep activations of order 1; vectors, which start at 0 or 1, are spread around there."""
    if parameter.dim() == 1:
        parameter.add_(0.3 * torch.randn_like(parameter))
    else:
        parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)


@torch.no_grad()
def _spread(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(0.3 * torch.randn_like(norm.running_mean))
    norm.running_var.copy_(0.5 + torch.rand_like(norm.running_var))


def images(count: int = 8, seed: int = 0) -> ImageSet:
    """Random pictures."""
    draw = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=draw)
    labels = torch.randint(0, CLASSES, (count,), generator=draw)
    return ImageSet(pictures, labels, torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25))


def view_of(name: str, count: int = 8) -> ImageView:
    """A network as blocks, on so many `images`."""
    model = tiny_model(name)
    family = family_of_module(model) if name in PLAIN else family_of(model.config.model_type)
    return image_view(model, family, images(count))
