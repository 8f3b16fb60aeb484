"""Train autoprune's embedded network for images, tiny-cnn, on one half of scikit-learn's digits.

    python scripts/train_tiny_cnn.py --out DIR

writes `DIR/model.safetensors` and prints the accuracy on the other half, which chooses nothing here. Seeded: the same
torch on the same processor writes the same file.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from autoprune.data import digits
from autoprune.models.tiny_cnn import TinyCNN

BATCH = 64
DECAY = 5e-4
TURN, GROW, SHIFT = 0.25, 0.15, 0.15  # at most: radians; share of the size; share of half the width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate at the start")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # sums do not depend on the number of cores
    torch.manual_seed(args.seed)
    network, begun = TinyCNN(), time.monotonic()
    train(network, *half(held_out=False), args.epochs, args.lr)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), args.out / "model.safetensors")
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters, {time.monotonic() - begun:.0f} s")
    for name, held_out in (("trained on", False), ("held out", True)):
        pixels, labels = half(held_out)
        with torch.no_grad():
            logits = network(pixels)
        right, ce = (logits.argmax(-1) == labels).float().mean(), functional.cross_entropy(logits, labels)
        print(f"{name}: {len(labels)} images, accuracy {right:.2%}, cross-entropy {ce:.4f}")


def half(held_out: bool) -> tuple[Tensor, Tensor]:
    """Normalised pixels `[N, 1, 8, 8]` and labels `[N]`."""
    images, labels = digits.read(held_out)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - digits.MEAN) / digits.STD
    return pixels, torch.from_numpy(labels)


def train(network: TinyCNN, pixels: Tensor, labels: Tensor, epochs: int, lr: float) -> None:
    """Train in place, and leave it in evaluation mode: SGD with Nesterov's momentum, the rate a cosine down to 0."""
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=DECAY)
    steps = epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for some in order[: len(order) // BATCH * BATCH].split(BATCH):
            logits = network(warped(pixels[some]))
            loss = functional.cross_entropy(logits, labels[some])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    network.eval()


def warped(pixels: Tensor) -> Tensor:
    """Images turned, grown or shrunk and shifted a little, each by itself; behind the border is what black is."""
    count = len(pixels)
    turn, grow = (torch.rand(2, count) * 2 - 1) * torch.tensor([[TURN], [GROW]])
    cos, sin = (1 + grow) * turn.cos(), (1 + grow) * turn.sin()
    shift = (torch.rand(2, count) * 2 - 1) * SHIFT
    maps = torch.stack([torch.stack([cos, -sin, shift[0]], -1), torch.stack([sin, cos, shift[1]], -1)], 1)
    grid = functional.affine_grid(maps, list(pixels.shape), align_corners=False)
    black = -digits.MEAN / digits.STD
    return functional.grid_sample(pixels - black, grid, align_corners=False) + black


if __name__ == "__main__":
    main()
