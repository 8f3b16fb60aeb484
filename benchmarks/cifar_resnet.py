"""A CIFAR-10 ResNet at half of its MACs: test accuracy of what agents find, before and after fine-tuning.

    python benchmarks/cifar_resnet.py --budget macs=0.5 --agents evolution,ddpg,dqn,uniform --seeds 3 --json

`--images FILE` is CIFAR-10 with `x_train`, `y_train`, `x_test`, `y_test`: arrays in a .npz, or JPEGs packed in one,
which `cifar10.py` beside it reads. Agents see training images alone; accuracy is on the 10,000 test images. Weights
are in the naming of akamaster's pytorch_resnet_cifar10, the architecture is built here (He et al. 2016, sec. 4.2,
option A). `found` is the policy's network as the search left it; `before` (fine-tuning) with its consumers refitted,
which `autoprune finetune` begins with; `after` fine-tuned. Settings of an agent follow its name:
`ddpg:episodes=100`. By default `max_evals` is 300.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command, mean_sd, specs
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from autoprune import study, training
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.networks.images import ImageView
from autoprune.recovery import finetuning
from autoprune.tasks.image_training import ImageTraining
from autoprune.written import parse_budget, parse_override

HERE = Path(__file__).resolve()
SHARED = HERE.parent.parent.parent / "shared"
MEASURED = ("found", "before", "after")
CHOSEN = "CIFAR_RESNET"  # in the environment: depth and weights, for `network`, which searches call


class Block(nn.Module):
    """A basic block with a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]`."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.more:
            left = self.more // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, left, self.more - left))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """Three stages of `(depth - 2) / 6` blocks with 16, 32 and 64 channels."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inputs = 16
        for number, outputs in enumerate((16, 32, 64), 1):
            first = Block(inputs, outputs, 1 if number == 1 else 2)
            others = [Block(outputs, outputs, 1) for _ in range((depth - 2) // 6 - 1)]
            setattr(self, f"layer{number}", nn.Sequential(first, *others))
            inputs = outputs
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, 10]` of `[B, 3, 32, 32]`."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def network() -> nn.Module:
    """What searches prune."""
    depth, _, weights = os.environ[CHOSEN].partition(":")
    model = CifarResNet(int(depth))
    try:
        model.load_state_dict(load_file(weights))
    except (OSError, RuntimeError) as error:
        raise UserError(f"no ResNet-{depth} in '{weights}': {str(error).splitlines()[0]}") from error
    return model


def main() -> None:
    args = arguments()
    os.environ[CHOSEN] = f"{args.depth}:{args.weights}"
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        train, test = images(args.images, Path(scratch))
        for agent in specs(args.agents):
            rows = []
            for seed in range(1 if agent == "uniform" and not args.epochs else args.seeds):
                rows.append(one(args, agent, seed, train, test, Path(scratch)))
                print(f"# {agent} seed {seed}: {rows[-1]}", file=sys.stderr, flush=True)
            report[agent] = {key: mean_sd([row[key] for row in rows])[0] for key in rows[0]}
            report[agent] |= {f"{key}_sd": mean_sd([row[key] for row in rows])[1] for key in MEASURED}
    columns = "".join(f"{key:>16s}" for key in MEASURED)
    print(f"\n{'agent':28s}{'dense':>8s}{columns}{'MACs':>8s}{'search s':>10s}{'dense passes':>14s}")
    for agent, row in report.items():
        pairs = "".join(f"{row[key]:8.2f} ± {row[key + '_sd']:5.2f}" for key in MEASURED)
        print(f"{agent:28s}{row['dense']:8.2f}{pairs}{row['macs']:8.3f}{row['seconds']:10.1f}{row['ratio']:14.2f}")
    if args.json:
        print(json.dumps(report))


def one(args: argparse.Namespace, agent: str, seed: int, train: Path, test: Path, scratch: Path) -> dict[str, float]:
    """One search: test accuracy in %, MACs as a share of dense, seconds, and those over a dense pass of its images."""
    name, _, options = agent.partition(":")
    own = {f"agent_options.{k}": v for k, v in (parse_override(text) for text in options.split(";") if text)}
    given = {
        "model": f"{HERE}:network", "data": str(train), "budgets": dict([parse_budget(args.budget)]), "agent": name,
        "seed": seed, "max_evals": args.evals, "device": args.device,
    }  # fmt: skip
    config = load_config(None, given | own | dict(parse_override(text) for text in args.set))
    run = scratch / f"{len(list(scratch.iterdir()))}"
    result = study.start(config, run)
    assembly = result.assembly
    view = assembly.view
    assert isinstance(view, ImageView)
    found, student = (
        finetuning.cut_out(assembly, result.policy),
        finetuning.cut_out(assembly, result.policy, refit=True),
    )
    tested = ImageView(view.model, view.family, tests(test, config, args.device))
    numbers = torch.arange(len(tested.images))
    held_out = ImageTraining(tested, numbers, numbers)
    macs = result.policy.costs["macs"]
    measured = {"dense": view.model, "found": found, "before": student}
    row = {name: accuracy(network, held_out) for name, network in measured.items()}
    every = torch.arange(len(view.images))
    training_set = ImageTraining(view, every, every)
    training.train(student, training_set, training.TrainingSettings(args.epochs, seed), run / "finetuned")
    per_image = dense_seconds(view)
    return row | {
        "after": accuracy(student, held_out), "macs": macs.policy / macs.dense,
        "seconds": result.spent.seconds,
        "ratio": result.spent.seconds / max(1, result.spent.tokens) / per_image,
        "candidates": result.spent.evals, "images": result.spent.tokens,
    }  # fmt: skip


def accuracy(model: nn.Module, held_out: ImageTraining) -> float:
    """In %."""
    return 100 * held_out.measured(model).accuracy


def dense_seconds(view: ImageView) -> float:
    """Of a dense forward pass, an image, in the batches that candidates are scored in; median of seven."""
    numbers, seconds = torch.arange(32, device=view.images.labels.device)[None], []
    for _ in range(8):
        begun = time.perf_counter()
        view(numbers)
        if numbers.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[1:])) / numbers.numel()


def tests(path: Path, config: Any, device: str) -> Any:
    """The test images."""
    from autoprune.data.images import read_images

    return read_images(str(path), config.image_mean, config.image_std).to(device)


def images(path: Path, scratch: Path) -> tuple[Path, Path]:
    """Training and test images in the form that searches read."""
    if not path.is_file():
        raise UserError(f"no CIFAR-10 at '{path}': --images takes a .npz file.")
    with np.load(path) as file:
        packed = "buf_train" in file.files
        arrays = None if packed else {key: file[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    if arrays is None:
        sys.path.insert(0, str(path.parent))
        import cifar10  # type: ignore[import-not-found] # beside the data

        arrays = cifar10.load(str(path))
    folder = Path(tempfile.mkdtemp(dir=scratch))
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", images=arrays[f"x_{part}"], labels=arrays[f"y_{part}"])
    return folder / "train.npz", folder / "test.npz"


def add_network(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which of these networks is meant, and where its images are."""
    parser.add_argument("--weights", type=Path, default=SHARED / "models" / "cifar-resnet20" / "model.safetensors")
    parser.add_argument("--depth", type=int, default=20, help="of the CIFAR-10 ResNet")
    parser.add_argument("--images", type=Path, default=SHARED / "data" / "cifar10_jpeg_packed.npz", help="CIFAR-10")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_network(parser)
    parser.add_argument("--budget", default="macs=0.5", metavar="METRIC=BOUND")
    parser.add_argument("--agents", default="evolution,ddpg,dqn,uniform")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evals", type=int, default=300, help="policies that each search scores")
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning; 0 is none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
