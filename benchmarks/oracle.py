"""Which number tells before recovery which policy is best after it? Rank correlations over policies of one budget.

    python benchmarks/oracle.py --model DIR --data FILE --json
    python benchmarks/oracle.py --budget macs=0.5 --recovery-epochs 2 --device cuda --json

"Is oracle pruning the true oracle?" (Feng et al. 2024) asks whether the loss of a pruned network says anything about
the network after training. Here: policies that meet one budget, half of them from the better half of a search, the
others random. Each is scored as searches do, refitted, trained as candidates are (agents/training_stages.py), and
recovered: refitted and fine-tuned with one seed. What counts is the loss on the validation split after that, against
the labels.
Spearman's correlations with it are told of the loss without training, after a refit, after candidate training, with
BatchNorm's statistics measured anew, and of a learned predictor: a ridge regression on the losses without training and
after a refit, the depth profile and what is dropped, which predicts each policy from all others.

Without --model it is the CIFAR-10 ResNet-20. A line with each policy is appended to `--out`, and a second call with the
same `--out` skips the policies that it has.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import cifar_resnet
import numpy as np
import torch
from common import command
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

import autoprune
from autoprune import registry, training
from autoprune.assembly import Assembly
from autoprune.display import print_table
from autoprune.journal import Journal
from autoprune.networks.images import ImageView, logits_of
from autoprune.ports.candidate_training import CandidateTraining
from autoprune.provenance import make_policy
from autoprune.recovery import finetuning
from autoprune.space import Levels
from autoprune.training import candidate
from autoprune.written import parse_budget, parse_override

GROWTH = (1, 4, 16)
RIDGES = 10.0 ** np.arange(-2, 4)
FEWEST = 10
"""Policies from which a predictor is learned, at least."""
PARTS = 4
"""Parts of the depth in which the predictor sees how much is kept of each kind of unit."""

MEASURED = 512
"""Images in a forward pass where BatchNorm's statistics are measured, at most."""

Row = dict[str, Any]
Floats = NDArray[np.float64]


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        result = autoprune.search(out=Path(scratch) / "run", **searched(args, Path(scratch)))
        assembly, run = result.assembly, result.path
        chosen = policies(assembly, run, args.policies, np.random.default_rng(args.seed))
    rows = known(args.out) if args.out else []
    done = {tuple(row["levels"]) for row in rows}
    begun = time.perf_counter()
    for levels in chosen:
        if levels not in done and time.perf_counter() - begun < args.seconds:
            rows.append(measured(assembly, levels, args))
            print("#", json.dumps(rows[-1]), flush=True)
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    report = compared(rows, features(assembly, rows))
    named = [[name, *(f"{value:.3f}" for value in pair)] for name, pair in report["correlations"].items()]
    print_table(
        f"rank correlation with the loss after recovery, {len(rows)} policies", ("", "all", "better half"), named
    )
    if args.json:
        print(json.dumps(report))


def searched(args: argparse.Namespace, scratch: Path) -> Row:
    """The settings of the search that policies come from."""
    given: Row = {
        "model": args.model, "data": args.data, "budgets": dict([parse_budget(args.budget)]), "seed": args.seed,
        "agent": args.agent, "max_evals": args.evals, "device": args.device,
    }  # fmt: skip
    if args.model is None:
        os.environ[cifar_resnet.CHOSEN] = f"{args.depth}:{args.weights}"
        images, _ = cifar_resnet.images(args.images, scratch)
        given |= {"model": f"{cifar_resnet.HERE}:network", "data": str(images)}
    return given | dict(parse_override(text) for text in args.set)


def known(out: Path) -> list[Row]:
    """Rows of an earlier call."""
    return [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


def policies(assembly: Assembly, run: Path, count: int, rng: np.random.Generator) -> list[Levels]:
    """Different ones: half from the better half of what the search scored, evenly by rank, the others random."""
    losses: dict[Levels, list[float]] = {}
    space = assembly.space
    for score in Journal(run / "journal.jsonl", assembly.subject).scores:
        assert isinstance(score.proposal, tuple)
        if space.feasible(score.proposal):  # slopes are measured beside them on others
            losses.setdefault(score.proposal, []).extend(score.losses)
    ranked = sorted(losses, key=lambda levels: float(np.mean(losses[levels])))[: len(losses) // 2]
    chosen = [ranked[i] for i in np.unique(np.linspace(0, len(ranked) - 1, count - count // 2).astype(int))]
    while len(chosen) < count:
        drawn = space.sample(rng)
        if drawn not in chosen:
            chosen.append(drawn)
    mixed = [chosen[i::2] for i in range(2)]  # a clock that runs out leaves some of both
    return [levels for pair in zip(*mixed, strict=False) for levels in pair] + chosen[2 * (len(chosen) // 2) :]


def measured(assembly: Assembly, levels: Levels, args: argparse.Namespace) -> Row:
    """One policy before, after candidate training, and after recovery."""
    scorer = assembly.evaluator(assembly.splits.search, assembly.config.loss)
    every, row = range(scorer.n_sequences), Row(levels=levels)
    row["loss"] = float(scorer.score([levels], every).mean())
    for trainer in args.trainers.split(","):
        name, _, lr = trainer.partition("@")
        how = CandidateTraining(name, lr=float(lr) if lr else None)
        trains = scorer.with_training(how, lambda: None)
        for growth in GROWTH:
            steps = max(1, round(growth * args.train_tokens / trains.step_items))
            begun = time.perf_counter()
            row[f"{trainer}, {growth}T"] = float(trains.score_trained([levels], every, steps).mean())
            row.setdefault("seconds", {})[f"{trainer}, {growth}T"] = time.perf_counter() - begun
    row |= re_estimated(assembly, levels, args)
    return row | recovered(assembly, levels, args)


@torch.no_grad()
def re_estimated(assembly: Assembly, levels: Levels, args: argparse.Namespace) -> Row:
    """KL to the dense network on the search split, with BatchNorm's statistics measured anew on T, 4T and 16T images.

    Empty for a network without BatchNorm. A pass over an image is charged as one forward pass; a refit takes four.
    """
    view, student, row = assembly.view, candidate.cut_out(assembly.placer, levels), Row()
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms or not isinstance(view, ImageView):
        return row
    numbers = assembly.splits.reconstruction.flatten().to(assembly.config.device)
    search = assembly.splits.search.flatten().to(assembly.config.device)
    for growth in GROWTH:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # which weighs all batches alike
        student.train()
        for some in numbers[: growth * args.train_tokens].split(MEASURED):
            student(view.pixels(some))
        student.eval()
        kl = [
            functional.kl_div(*(logits_of(net(view.pixels(some))).log_softmax(-1) for net in (student, view.model)),
                              reduction="sum", log_target=True)
            for some in search.split(MEASURED)
        ]  # fmt: skip
        row[f"batchnorm, {growth}T"] = float(sum(kl)) / len(search)
    return row


def recovered(assembly: Assembly, levels: Levels, args: argparse.Namespace) -> Row:
    """Losses on the validation split against the labels."""
    policy = make_policy(assembly, levels, {})
    examples = assembly.task.training(assembly)
    student = finetuning.cut_out(assembly, policy, refit=True)
    row = {"validation refitted": examples.measured(student).loss}
    limits = {"max_tokens": args.recovery_tokens} if args.recovery_epochs is None else {"epochs": args.recovery_epochs}
    given = {"seed": args.seed, **limits} | dict(parse_override(text) for text in args.tune)
    begun = time.perf_counter()
    training.train(student, examples, training.settings_of(examples.defaults, given), None)
    return row | {"recovered": examples.measured(student).loss, "recovery_seconds": time.perf_counter() - begun}


def features(assembly: Assembly, rows: list[Row]) -> Floats:
    """What the predictor sees of each policy, `[P, F]`."""
    units, blocks = assembly.space.units, 1 + max(unit.block for unit in assembly.space.units)
    kinds, found = sorted({unit.kind for unit in units}), []
    for row in rows:
        kept_U = np.array(assembly.space.kept(tuple(row["levels"]))) / np.array(assembly.space.groups)
        refits = [row[name] for name in row if name.startswith("refit, ")]
        values = [np.log(row["loss"]), *(np.log(row["loss"]) - np.log(loss) for loss in refits[-1:])]
        for kind in kinds:
            own_U = np.array([unit.kind == kind for unit in units])
            part_U = np.array([unit.block * PARTS // blocks for unit in units])
            values += [
                float(kept_U[own_U & (part_U == part)].mean())
                for part in range(PARTS)
                if (own_U & (part_U == part)).any()
            ]
            values += [float((kept_U[own_U] == 0).mean()), float(kept_U[own_U].std())]
        found.append(values)
    return np.array(found, dtype=np.float64)


def predicted(features_PF: Floats, wanted_P: Floats) -> Floats:
    """Each policy's value by ridge regression on all others, whose strength is chosen in the same way among them."""
    everyone = np.arange(len(wanted_P))
    found = np.zeros(len(wanted_P))
    for p in everyone:
        others = everyone[everyone != p]
        errors = [_left_out(features_PF[others], wanted_P[others], ridge) for ridge in RIDGES]
        ridge = RIDGES[int(np.argmin(errors))]
        found[p] = _fitted(features_PF[others], wanted_P[others], ridge, features_PF[[p]])[0]
    return found


def _fitted(seen_PF: Floats, wanted_P: Floats, ridge: float, asked_QF: Floats) -> Floats:
    mean_F, sd_F = seen_PF.mean(0), seen_PF.std(0) + 1e-9
    x_PF, centre = (seen_PF - mean_F) / sd_F, wanted_P.mean()
    weight_F = np.linalg.solve(x_PF.T @ x_PF + ridge * np.eye(x_PF.shape[1]), x_PF.T @ (wanted_P - centre))
    return np.asarray((asked_QF - mean_F) / sd_F @ weight_F + centre)


def _left_out(seen_PF: Floats, wanted_P: Floats, ridge: float) -> float:
    """Mean square error of a ridge regression on policies that it is not fitted to, in closed form."""
    x_PF = (seen_PF - seen_PF.mean(0)) / (seen_PF.std(0) + 1e-9)
    hat_PP = x_PF @ np.linalg.solve(x_PF.T @ x_PF + ridge * np.eye(x_PF.shape[1]), x_PF.T) + 1 / len(x_PF)
    return float((((wanted_P - hat_PP @ wanted_P) / (1 - hat_PP.diagonal())) ** 2).mean())


def compared(rows: list[Row], features_PF: Floats) -> Row:
    """Rank correlations with the loss after recovery, and what the best by each number is worth after it."""
    after_P = np.array([row["recovered"] for row in rows])
    numbers = {"loss": "loss", "validation loss, refitted": "validation refitted"}
    numbers |= {name: name for name in rows[0] if ", " in name and name.endswith("T")}
    values = {told: np.array([row[name] for row in rows]) for told, name in numbers.items()}
    better_P = np.argsort(values["loss"])[: len(rows) // 2]
    if len(better_P) >= FEWEST:
        values["predictor"] = predicted(features_PF, np.log(after_P))
        values["predictor of the better half"] = np.full(len(rows), np.inf)
        values["predictor of the better half"][better_P] = predicted(features_PF[better_P], np.log(after_P[better_P]))
    told = {
        name: (spearman(value_P, after_P), spearman(value_P[better_P], after_P[better_P]))
        for name, value_P in values.items()
    }
    chosen = {name: float(after_P[int(np.argmin(value_P))]) for name, value_P in values.items()}
    return {
        "correlations": told,
        "recovered of the best by": chosen,
        "best": float(after_P.min()),
        "policies": len(rows),
    }


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation; ties are rare."""
    ranks: Any = [np.argsort(np.argsort(x)) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="as of `autoprune search`; without it the CIFAR-10 ResNet")
    parser.add_argument("--data")
    cifar_resnet.add_network(parser)
    parser.add_argument("--budget", default="params=0.5", metavar="METRIC=BOUND")
    parser.add_argument("--agent", default="evolution", choices=registry.names("agents"))
    parser.add_argument("--policies", type=int, default=40)
    parser.add_argument("--evals", type=int, default=300)
    parser.add_argument("--train-tokens", type=int, default=4096, help="of the first stage, or images")
    parser.add_argument("--trainers", default="refit,norms@1e-3,full", metavar="TRAINER[@LR],...")
    parser.add_argument("--recovery-tokens", type=int, default=200_000)
    parser.add_argument("--recovery-epochs", type=int, help="in the place of --recovery-tokens")
    parser.add_argument("--tune", action="append", default=[], metavar="KEY=VALUE", help="settings of fine-tuning")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no further policy is begun")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="rows are appended here, and those that it has are skipped")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
