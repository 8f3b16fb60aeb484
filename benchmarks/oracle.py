"""Does the loss before fine-tuning tell which policy is best after it? Rank correlation over policies of one budget.

    python benchmarks/oracle.py --policies 40 --epochs 2 --device cuda --json

"Is oracle pruning the true oracle?" (Feng et al. 2024) asks whether the loss of a pruned network says anything about
the network after training. Here: policies of a CIFAR-10 ResNet that meet one budget, half of them random and half
steps of a search (so that they are good ones); each is scored as searches do, and fine-tuned with one seed. Prints
Spearman's correlation of the calibration loss with cross-entropy and accuracy on the test images after fine-tuning,
over all policies, over the better half, and how the policy with the least loss before ranks after.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import cifar_resnet
import numpy as np
import torch
from common import command
from numpy.typing import NDArray

from autoprune import registry, study, training
from autoprune.assembly import Assembly
from autoprune.config import load_config
from autoprune.journal import Journal
from autoprune.networks.images import ImageView
from autoprune.provenance import make_policy
from autoprune.recovery import finetuning
from autoprune.space import Levels
from autoprune.tasks.image_training import ImageTraining
from autoprune.written import parse_budget


def main() -> None:
    args = arguments()
    os.environ[cifar_resnet.CHOSEN] = f"{args.depth}:{args.weights}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train, test = cifar_resnet.images(args.images, folder)
        given = {
            "model": f"{cifar_resnet.HERE}:network", "data": str(train), "budgets": dict([parse_budget(args.budget)]),
            "seed": args.seed, "max_evals": args.evals, "device": args.device, "agent": args.agent,
        }  # fmt: skip
        result = study.start(load_config(None, given), folder / "run")
        assembly = result.assembly
        chosen = policies(assembly, folder / "run", args.policies, np.random.default_rng(args.seed))
        before_P = calibration_loss(assembly, chosen)
        after = [recovered(assembly, levels, test, args, folder / f"{p}") for p, levels in enumerate(chosen)]
    report = compared(before_P, np.array(after))
    for name, value in report.items():
        print(f"{name:32s}{value:10.3f}")
    if args.json:
        told = {"before": before_P.tolist(), "after": after}
        print(json.dumps(report | told))


def calibration_loss(assembly: Assembly, chosen: list[Levels]) -> NDArray[np.float64]:
    """As searches estimate it, on the whole of their split, `[P]`."""
    every = range(len(assembly.splits.search))
    losses = assembly.evaluator(assembly.splits.search, assembly.config.loss).score(chosen, every)
    return losses.mean(axis=1)


def policies(assembly: Assembly, run: Path, count: int, rng: np.random.Generator) -> list[Levels]:
    """Different ones: half from the better half of what the search scored, evenly by rank, the others random."""
    losses: dict[Levels, list[float]] = {}
    space, subject = assembly.space, f"{assembly.store.directory.name}/{assembly.config.loss}"
    for score in Journal(run / "journal.jsonl", subject).scores:
        assert isinstance(score.proposal, tuple)
        if space.feasible(score.proposal):  # slopes are measured beside them on others
            losses.setdefault(score.proposal, []).extend(score.losses)
    ranked = sorted(losses, key=lambda levels: float(np.mean(losses[levels])))[: len(losses) // 2]
    chosen = [ranked[i] for i in np.unique(np.linspace(0, len(ranked) - 1, count - count // 2).astype(int))]
    while len(chosen) < count:
        drawn = assembly.space.sample(rng)
        if drawn not in chosen:
            chosen.append(drawn)
    return chosen


def recovered(assembly: Assembly, levels: Levels, test: Path, args: argparse.Namespace, folder: Path) -> list[float]:
    """Cross-entropy and accuracy on the test images, before and after fine-tuning."""
    view = assembly.view
    assert isinstance(view, ImageView)
    tested = ImageView(view.model, view.family, cifar_resnet.tests(test, assembly.config, args.device))
    numbers = torch.arange(len(tested.images))
    held_out = ImageTraining(tested, numbers, numbers)
    policy = make_policy(assembly, levels, {})
    found, student = finetuning.cut_out(assembly, policy), finetuning.cut_out(assembly, policy, refit=True)
    every = torch.arange(len(view.images))
    training_set = ImageTraining(view, every, every)
    worth = [held_out.measured(found)]
    how = training.settings_of(training_set.defaults, {"epochs": args.epochs, "seed": args.seed, "batch": args.batch})
    training.train(student, training_set, how, folder)
    worth.append(held_out.measured(student))
    print(f"# {levels}: {worth}", file=sys.stderr, flush=True)
    return [value for one in worth for value in (one.ce, one.accuracy)]


def compared(loss_P: NDArray[np.float64], worth_P4: NDArray[np.float64]) -> dict[str, float]:
    """Rank correlations with what comes after, and the rank after of the best before (0 is the best, 1 the worst)."""
    better_P = np.argsort(loss_P)[: len(loss_P) // 2]
    ce_P, accuracy_P = worth_P4[:, 2], worth_P4[:, 3]
    first = int(loss_P.argmin())
    return {
        "loss, test loss before": spearman(loss_P, worth_P4[:, 0]),
        "loss, test loss after": spearman(loss_P, ce_P),
        "loss, test error after": spearman(loss_P, -accuracy_P),
        "the same, better half": spearman(loss_P[better_P], ce_P[better_P]),
        "rank after of the best before": float((ce_P < ce_P[first]).mean()),
        "accuracy after of the best before": float(accuracy_P[first]),
        "best accuracy after": float(accuracy_P.max()),
        "median accuracy after": float(np.median(accuracy_P)),
    }


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation; ties are rare."""
    ranks: Any = [np.argsort(np.argsort(x)) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=cifar_resnet.SHARED / "models/cifar-resnet20/model.safetensors")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--images", type=Path, default=cifar_resnet.SHARED / "data" / "cifar10_jpeg_packed.npz")
    parser.add_argument("--budget", default="macs=0.5", metavar="METRIC=BOUND")
    parser.add_argument("--agent", default="evolution", choices=registry.names("agents"))
    parser.add_argument("--policies", type=int, default=40)
    parser.add_argument("--evals", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
