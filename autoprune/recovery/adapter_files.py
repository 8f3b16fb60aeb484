"""Saves trained adapters apart, in peft's format, beside the network that they are added to.

`RUN/finetuned/base` is an export of the network that training began with, and `RUN/finetuned/adapters` the adapters:

    base = AutoModelForCausalLM.from_pretrained("RUN/finetuned/base")
    model = peft.PeftModel.from_pretrained(base, "RUN/finetuned/adapters")
"""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import UserError
from autoprune.files.arrays import read_tensors
from autoprune.training.adapters import is_transposed
from autoprune.training.settings import TrainingSettings
from autoprune.training.state import FILE
from autoprune.training.stopping import BEST
from autoprune.training.zeros import mask_of

BASE, ADAPTERS = "base", "adapters"
DOWN, UP = ".adapter.down", ".adapter.up"


def check_adapters(settings: TrainingSettings, network: nn.Module) -> None:
    """Raise a UserError unless adapters of this network can be saved where that is asked for."""
    if not settings.save_adapters:
        return
    if importlib.util.find_spec("peft") is None:
        raise UserError("save_adapters=true needs peft: pip install 'autoprune[peft]', or leave it.")
    if any(mask_of(layer) is not None for layer in network.modules()):
        raise UserError(
            "adapters of a network with single weights removed cannot be saved apart, because added to it they would "
            "bring the weights back: leave save_adapters. The merged network is right."
        )


@torch.no_grad()
def save_adapters(folder: Path, base: nn.Module, settings: TrainingSettings) -> Path:
    """Write the adapters of a training to `folder/adapters`. The network gets them, too, through peft.

    Args:
        folder: of the training's state.
        base: the network that training began with.
        settings: settings of the training.
    """
    from peft import LoraConfig, get_peft_model

    found = _trained(folder, settings)
    ranks = {name: len(down) for name, (down, _) in found.items()}
    narrow = {name: rank for name, rank in ranks.items() if rank != settings.lora}
    config = LoraConfig(
        r=settings.lora,
        lora_alpha=settings.alpha,  # which need not be whole
        target_modules=list(found),
        rank_pattern=narrow,
        alpha_pattern={name: settings.alpha * rank / settings.lora for name, rank in narrow.items()},
        fan_in_fan_out=any(is_transposed(base.get_submodule(name)) for name in found),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted: Any = get_peft_model(base, config)
        for name, (down, up) in found.items():
            layer: Any = base.get_submodule(name)
            layer.lora_A["default"].weight.copy_(down)
            layer.lora_B["default"].weight.copy_(up)
        adapted.peft_config["default"].base_model_name_or_path = f"../{BASE}"
        adapted.save_pretrained(folder / ADAPTERS, save_embedding_layers=False)
    return folder / ADAPTERS


def _trained(folder: Path, settings: TrainingSettings) -> dict[str, tuple[Tensor, Tensor]]:
    """The matrices of each layer's adapter, `down` and `up`, of the network that is handed over."""
    file, before = (BEST, "") if settings.patience else (FILE, "network.")
    tensors = read_tensors(folder / file)
    names = [name.removesuffix(DOWN) for name in tensors if name.startswith(before) and name.endswith(DOWN)]
    return {name.removeprefix(before): (tensors[name + DOWN], tensors[name + UP]) for name in names}
