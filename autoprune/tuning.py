"""Short fine-tuning of a run's policy, taught by the dense network and by the labels: what published numbers are after.

The loss of an image is `(1 - weight) * cross-entropy + weight * T^2 * KL(dense || pruned)` at temperature T (Hinton et
al. 2015, sec. 2). SGD with Nesterov's momentum and a cosine schedule; images are shifted and mirrored at random.
Trained on all images of the run but its validation split, which tells what it was worth.

In `RUN/finetuned/`: `state.safetensors` after every epoch (weights, momentum, how many epochs), at the end
`result.json` and `network/`, an export. What is drawn in an epoch depends on the seed and the epoch alone, so a
training that was interrupted goes on as if nothing had happened.
"""

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from autoprune import rundir, study
from autoprune.assembly import Assembly, Progress
from autoprune.errors import UserError
from autoprune.exporters import module as module_exporter
from autoprune.models.images import ImageView, logits_of
from autoprune.models.surgery import materialise
from autoprune.policy import Policy, to_json, write_atomically
from autoprune.provenance import proposal_of

EVALUATED = 500  # images at a time
SHIFT = 8  # an image of n pixels is shifted by up to n / 8, as is usual for CIFAR


@dataclass(frozen=True)
class Tuning:
    """How to fine-tune.

    Args:
        epochs: passes over the images.
        seed: of the order of images, shifts and mirrors.
        lr: learning rate at the start.
        batch: images a step.
        weight: of the dense network's opinion, against the labels'.
        temperature: of both networks' probabilities where they are compared.
        decay: of weights.
        augment: shift and mirror images.
    """

    epochs: int
    seed: int = 0
    lr: float = 0.05
    batch: int = 128
    weight: float = 0.5
    temperature: float = 4.0
    decay: float = 5e-4
    augment: bool = True


@dataclass(frozen=True)
class Worth:
    """On the validation split.

    Args:
        ce: cross-entropy, nats per image.
        accuracy: top-1.
    """

    ce: float
    accuracy: float


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning gave.

    Args:
        dense: the network that the search was given.
        before: as it was found.
        after: fine-tuned.
        path: of the export.
    """

    dense: Worth
    before: Worth
    after: Worth
    path: Path


def finetune(run: Path, tuning: Tuning, progress: Progress = lambda stage, share: None) -> Tuned:
    """Fine-tune the policy of a finished run, or go on where that was interrupted.

    Args:
        run: its directory.
        tuning: how.
        progress: is told the stage and how much of it is done.

    Raises:
        UserError: the run has no policy or is of a language model, something else was begun in its `finetuned/`, the
            loss is not finite, or the disk is full.
    """
    assembly, policy = study.reopen(run, progress)
    view = assembly.view
    if not isinstance(view, ImageView):
        raise UserError("networks that read images are fine-tuned so far: this run is of a language model.")
    student = cut_out(assembly, policy)
    held_out = assembly.splits.validation.flatten().to(assembly.config.device)
    dense, before = measured(view.model, view, held_out), measured(student, view, held_out)
    folder = run / "finetuned"
    with rundir.locked(run):
        train(student, view, _others(len(view.images), held_out), tuning, folder, progress)
    after = measured(student, view, held_out)
    module_exporter.save(assembly, policy, student, folder / "network")
    result = {"tuning": asdict(tuning), "dense": asdict(dense), "before": asdict(before), "after": asdict(after)}
    write_atomically(folder / "result.json", to_json(result) + "\n")
    return Tuned(dense, before, after, folder / "network")


def cut_out(assembly: Assembly, policy: Policy) -> nn.Module:
    """A policy's network in memory of its own, in evaluation mode; the live one is dense when this returns."""
    assembly.placer.place(proposal_of(assembly, policy))
    student = copy.deepcopy(assembly.loaded.model)
    assembly.placer.release()
    materialise(student)
    return student.requires_grad_(True)


@torch.no_grad()
def measured(network: nn.Module, view: ImageView, numbers: Tensor) -> Worth:
    """Cross-entropy and accuracy of a network on images."""
    losses, right = 0.0, 0
    for some in torch.split(numbers, EVALUATED):
        logits_NV, labels_N = logits_of(network(view.images.pixels(some))).float(), view.images.labels[some]
        losses += float(functional.cross_entropy(logits_NV, labels_N, reduction="sum"))
        right += int((logits_NV.argmax(-1) == labels_N).sum())
    return Worth(losses / len(numbers), right / len(numbers))


def train(
    student: nn.Module, view: ImageView, numbers: Tensor, tuning: Tuning, folder: Path, progress: Progress
) -> None:
    """Train in place; `view.model` is the dense network.

    Args:
        numbers: of the images to train on.
        folder: where it is saved after every epoch, and gone on with.
    """
    weights = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, tuning.lr, momentum=0.9, nesterov=True, weight_decay=tuning.decay)
    steps = math.ceil(len(numbers) / tuning.batch)
    begun = _restore(student, optimizer, weights, tuning, folder)
    for epoch in range(begun, tuning.epochs):
        student.train()
        draw = torch.Generator().manual_seed(1_000_003 * tuning.seed + epoch)
        for step, some in enumerate(_batches(numbers, tuning.batch, draw)):
            done = (epoch * steps + step) / (tuning.epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = tuning.lr * (1 + math.cos(math.pi * done)) / 2
            pixels = view.images.pixels(some)
            loss = _loss(student, view, augmented(pixels, draw) if tuning.augment else pixels, some, tuning)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress("fine-tuning", done)
        student.eval()
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise UserError(
                f"fine-tuning has diverged in epoch {epoch + 1}: take a smaller learning rate than {tuning.lr}."
            )
        _keep(student, optimizer, weights, tuning, folder, epoch + 1)


def augmented(pixels: Tensor, draw: torch.Generator) -> Tensor:
    """Images shifted by up to an eighth of their sides and mirrored, each by itself; the border is 0.

    Args:
        pixels: `[N, C, height, width]`.
        draw: on the CPU.
    """
    count, _, height, width = pixels.shape
    reach = max(1, height // SHIFT), max(1, width // SHIFT)
    padded = functional.pad(pixels, (reach[1], reach[1], reach[0], reach[0]))
    top_N, left_N = (torch.randint(0, 2 * r + 1, (count, 1), generator=draw) for r in reach)
    rows_NH, columns_NW = top_N + torch.arange(height), left_N + torch.arange(width)
    mirrored_N = torch.rand(count, 1, generator=draw) < 0.5
    columns_NW = torch.where(mirrored_N, columns_NW.flip(1), columns_NW)
    rows_NH, columns_NW = rows_NH.to(pixels.device), columns_NW.to(pixels.device)
    every_N = torch.arange(count, device=pixels.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[every_N, rows_NH[:, :, None], columns_NW[:, None, :]].permute(0, 3, 1, 2)


def _loss(student: nn.Module, view: ImageView, pixels: Tensor, numbers: Tensor, tuning: Tuning) -> Tensor:
    with torch.no_grad():
        taught_NV = logits_of(view.model(pixels)).float() / tuning.temperature
    own_NV = logits_of(student(pixels)).float()
    told = functional.cross_entropy(own_NV, view.images.labels[numbers])
    log_NV = (own_NV / tuning.temperature).log_softmax(-1)
    shown = functional.kl_div(log_NV, taught_NV.log_softmax(-1), reduction="batchmean", log_target=True)
    return (1 - tuning.weight) * told + tuning.weight * tuning.temperature**2 * shown


def _batches(numbers: Tensor, size: int, draw: torch.Generator) -> Iterator[Tensor]:
    yield from torch.split(numbers[torch.randperm(len(numbers), generator=draw).to(numbers.device)], size)


def _others(count: int, held_out: Tensor) -> Tensor:
    left = torch.ones(count, dtype=torch.bool, device=held_out.device)
    left[held_out] = False
    return left.nonzero().flatten()


# -- going on after an interruption ------------------------------------------------------------------------------------


def _keep(
    student: nn.Module,
    optimizer: torch.optim.SGD,
    weights: list[nn.Parameter],
    tuning: Tuning,
    folder: Path,
    epoch: int,
) -> None:
    tensors = {f"network.{name}": tensor.cpu().contiguous() for name, tensor in student.state_dict().items()}
    for i, weight in enumerate(weights):
        tensors[f"momentum.{i}"] = optimizer.state[weight]["momentum_buffer"].cpu().contiguous()
    told = {"epoch": str(epoch), "tuning": json.dumps(asdict(tuning))}
    try:
        folder.mkdir(exist_ok=True)
        save_file(tensors, folder / "state.new", told)
        (folder / "state.new").replace(folder / "state.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"the state of fine-tuning could not be written to '{folder}' ({error}).") from error


def _restore(
    student: nn.Module, optimizer: torch.optim.SGD, weights: list[nn.Parameter], tuning: Tuning, folder: Path
) -> int:
    """Epochs that are done; the state behind them is put in place."""
    file = folder / "state.safetensors"
    if not file.exists():
        return 0
    try:
        with safe_open(file, framework="pt") as state:
            told = state.metadata()
            tensors = {name: state.get_tensor(name) for name in state.keys()}  # noqa: SIM118 (no mapping)
        epoch, before = int(told["epoch"]), json.loads(told["tuning"])
        changed = [f"{key}={value}" for key, value in before.items() if asdict(tuning).get(key) != value]
        if not changed:
            network = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
            student.load_state_dict(network)
            for i, weight in enumerate(weights):
                optimizer.state[weight]["momentum_buffer"] = tensors[f"momentum.{i}"].to(weight.device)
    except (OSError, TypeError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the state in '{folder}' is damaged, or of another policy ({reason}): delete it.") from error
    if changed:
        raise UserError(
            f"'{folder}' holds a fine-tuning with {', '.join(changed)}: go on with the same settings, or delete it."
        )
    return epoch
