"""Train a CIFAR-10 ResNet of any depth, for `cifar_resnet.py --depth N --weights FILE`.

    python benchmarks/cifar_train.py --depth 56 --out resnet56.safetensors --device cuda

SGD with Nesterov's momentum, a learning rate that rises for a fifth of the steps and falls to 0, images shifted and
mirrored; matrices are multiplied in bfloat16 on a GPU. Prints test accuracy in % after every tenth epoch.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from cifar_resnet import SHARED, CifarResNet, images
from common import command
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from autoprune.config import SearchConfig
from autoprune.data.images import ImageSet, read_images
from autoprune.tasks.image_training import augmented


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    defaults = SearchConfig()
    with tempfile.TemporaryDirectory() as scratch:
        train, test = (
            read_images(str(path), defaults.image_mean, defaults.image_std).to(args.device)
            for path in images(args.images, Path(scratch))
        )
    model = CifarResNet(args.depth).to(args.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = args.epochs * (len(train) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, steps, pct_start=0.2, cycle_momentum=False)
    draw = torch.Generator().manual_seed(args.seed)
    for epoch in range(args.epochs):
        model.train()
        order = torch.randperm(len(train), generator=draw).to(args.device)
        for some in order[: len(order) // args.batch * args.batch].view(-1, args.batch):
            with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.device != "cpu"):
                logits = model(augmented(train.pixels(some), draw).to(memory_format=torch.channels_last))
                loss = functional.cross_entropy(logits, train.labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9 or epoch == args.epochs - 1:
            print(f"epoch {epoch + 1}: test accuracy {accuracy(model.eval(), test):.2f}", flush=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, args.out)


@torch.no_grad()
def accuracy(model: CifarResNet, test: ImageSet) -> float:
    """In %."""
    every: Tensor = torch.arange(len(test), device=test.labels.device)
    right = [(model(test.pixels(some)).argmax(-1) == test.labels[some]).float() for some in every.split(500)]
    return 100 * float(np.mean(torch.cat(right).cpu().numpy()))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=56)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=Path, default=SHARED / "data" / "cifar10_jpeg_packed.npz")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
