"""What `recovery.py` measures of a network that reads images: accuracy on images that neither search nor training saw.

The network of a policy is cut out as `autoprune finetune` does: `found` is as the search left it, `refitted` has its
consumers solved in closed form, and `recovered` is the better of these two on the validation split, trained.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cifar_resnet
import torch

from autoprune import training
from autoprune.data.images import read_images
from autoprune.networks.images import ImageView
from autoprune.recovery import finetuning
from autoprune.recovery.cutting_out import cut_out
from autoprune.result import SearchResult
from autoprune.task_choice import task_of
from autoprune.tasks.image_training import ImageTraining
from autoprune.written import parse_override

Row = dict[str, Any]


def chosen(args: argparse.Namespace, scratch: Path) -> bool:
    """Whether the network reads images. Without `--model` it is a CIFAR-10 ResNet; `scratch` gets its data."""
    if args.model is None:
        os.environ[cifar_resnet.CHOSEN] = f"{args.depth}:{args.weights}"
        args.data, args.test = map(str, cifar_resnet.images(args.images, scratch))
        args.model = f"{cifar_resnet.HERE}:network"
    return task_of(None, args.model).name == "images"


def measured(result: SearchResult, seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    """Each stage with its accuracy in % and cross-entropy on the test images, and what its training took."""
    assembly, policy = result.assembly, result.policy
    test, examples = held_out(result, args.test), assembly.task.training(assembly)
    assembly.placer.release()  # the search's last policy may be in the place of the dense network
    args.dense = args.dense or of_test(test, examples.dense)
    yield "dense", args.dense
    networks = {name: cut_out(assembly, policy, name == "refitted") for name in ("found", "refitted")}
    for name, network in networks.items():
        yield name, of_test(test, network)
    start, _ = finetuning.better({name: examples.measured(network) for name, network in networks.items()})
    given = {"seed": seed, "max_tokens": args.recovery_tokens} | dict(parse_override(text) for text in args.tune)
    begun = time.perf_counter()
    done = training.train(networks[start], examples, training.settings_of(examples.defaults, given), None)
    told = {"began_with": start, "training": {"tokens": done.tokens, "seconds": done.seconds}}
    told |= {"validation": examples.measured(networks[start]).loss, "minutes": (time.perf_counter() - begun) / 60}
    yield "recovered", of_test(test, networks[start]) | told


def held_out(result: SearchResult, path: str) -> ImageTraining:
    """The test images, beside the dense network."""
    config, view = result.assembly.config, result.assembly.view
    assert isinstance(view, ImageView)
    images = read_images(path, config.image_mean, config.image_std).to(config.device)
    every = torch.arange(len(images))
    return ImageTraining(ImageView(view.model, view.family, images), every, every)


def of_test(test: ImageTraining, network: torch.nn.Module) -> Row:
    """Accuracy in %, and cross-entropy."""
    told = test.measured(network)
    return {"accuracy": 100 * told.accuracy, "ce": told.ce}
