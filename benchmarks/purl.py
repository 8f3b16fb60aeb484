"""PuRL on a CIFAR-10 ResNet at 80 % sparsity of single weights: test accuracy, and the episodes that it takes.

    python benchmarks/purl.py --seeds 3 --json
    python benchmarks/purl.py --depth 56 --weights resnet56.safetensors --device cuda --seeds 3 --json

Rows are agents, whose settings follow their name (`purl:episodes=2;max_episodes=100`). `global-magnitude` is no search:
one threshold for all layers, as the criterion of that name has it. The others choose a share of weights for every unit,
by magnitude within its matrices. `purl` is paid at every step, and `purl:reward=purl-end` at the end of an episode.
All searches may score as many images. `found` is the test accuracy of what was found, `after` that after `--steps`
steps of fine-tuning, which leaves zeros zero. `images` were scored in all; at `until` the answer changed for the last
time. `episodes` are those of agents that have them. The last line of `--json` has all rows.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import cifar_resnet
import torch
from common import mean_sd, specs

from autoprune import study, training
from autoprune.agents import training as agent_training
from autoprune.config import load_config
from autoprune.networks.images import ImageView
from autoprune.recovery import finetuning
from autoprune.tasks.image_training import ImageTraining
from autoprune.written import parse_override

GLOBAL = "global-magnitude"
NUMBERS = ("found", "after", "kept", "evals", "images", "until", "episodes", "seconds")
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
"""Levels of every unit that searches choose from."""


def main() -> None:
    args = arguments()
    os.environ[cifar_resnet.CHOSEN] = f"{args.depth}:{args.weights}"
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        parts = cifar_resnet.images(args.images, Path(scratch))
        for agent in specs(args.agents):
            rows = []
            for seed in range(1 if agent == GLOBAL else args.seeds):
                rows.append(one(args, agent, seed, parts, Path(scratch)))
                print(f"# {agent} seed {seed}: {rows[-1]}", file=sys.stderr, flush=True)
            report[agent] = {key: mean_sd([row[key] for row in rows]) for key in rows[0]}
    print(f"\n{'agent':36s}" + "".join(f"{key:>18s}" for key in NUMBERS))
    for agent, row in report.items():
        print(f"{agent:36s}" + "".join(f"{row[key][0]:10.2f} ± {row[key][1]:5.2f}" for key in NUMBERS))
    if args.json:
        print(json.dumps(report))


def one(args: argparse.Namespace, agent: str, seed: int, parts: tuple[Path, Path], scratch: Path) -> dict[str, float]:
    """One search, its test accuracy in %, and what it took."""
    config = load_config(None, settings(args, agent, seed, parts[0]))
    run, ended = scratch / f"{len(list(scratch.iterdir()))}", Episodes()
    with ended:
        result = study.start(config, run)
    assembly = result.assembly
    view = assembly.view
    assert isinstance(view, ImageView)
    student = finetuning.cut_out(assembly, result.policy)
    tested = ImageView(view.model, view.family, cifar_resnet.tests(parts[1], config, args.device))
    numbers = torch.arange(len(tested.images))[: args.tested]
    held_out = ImageTraining(tested, numbers, numbers)
    dense, found = cifar_resnet.accuracy(view.model, held_out), cifar_resnet.accuracy(student, held_out)
    every = torch.arange(len(view.images))
    training_set = ImageTraining(view, every, every)
    if args.steps:
        settled = training.settings_of(training_set.defaults, {"max_steps": args.steps, "seed": seed})
        training.train(student, training_set, settled, run / "finetuned")
    cost = result.policy.costs["params"]
    return {
        "dense": dense, "found": found, "after": cifar_resnet.accuracy(student, held_out),
        "kept": cost.policy / cost.dense, "evals": result.spent.evals, "images": result.spent.tokens,
        "until": float(result.incumbents[-1].tokens if result.incumbents else 0), "episodes": float(ended.count),
        "seconds": result.spent.seconds,
    }  # fmt: skip


def settings(args: argparse.Namespace, agent: str, seed: int, train: Path) -> dict[str, Any]:
    """Settings of a search."""
    name, _, options = agent.partition(":")
    own = {f"agent_options.{k}": v for k, v in (parse_override(text) for text in options.split(";") if text)}
    kept, shares = 1 - args.sparsity, "/".join(map(str, SHARES))
    given = {
        "model": f"{cifar_resnet.HERE}:network", "data": str(train), "budgets": {"params": kept}, "seed": seed,
        "max_tokens": args.scored, "device": args.device, "agent": name, "criterion": "magnitude",
        "forms": f"sparse:{shares}",
    }  # fmt: skip
    if name == GLOBAL:
        given |= {"agent": "uniform", "criterion": GLOBAL, "forms": f"sparse:{kept:.4g}/{kept / 2:.4g}"}
    return given | own | dict(parse_override(text) for text in args.set)


class Episodes:
    """Counts the episodes that end while it is entered, of agents on stable-baselines3."""

    count = 0

    def __enter__(self) -> None:
        self._own = agent_training.Training._ended

        def ended(training: Any, outcome: Any) -> None:
            self.count += len(outcome.policies)
            self._own(training, outcome)

        agent_training.Training._ended = ended  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        agent_training.Training._ended = self._own  # type: ignore[method-assign]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cifar_resnet.add_network(parser)
    parser.add_argument("--sparsity", type=float, default=0.8, help="share of single weights that leaves")
    parser.add_argument("--agents", default=f"{GLOBAL},uniform,evolution,purl,purl:reward=purl-end")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scored", type=int, default=300_000, help="images that each search scores")
    parser.add_argument("--steps", type=int, default=400, help="of fine-tuning; 0 is none")
    parser.add_argument("--tested", type=int, default=10_000, help="test images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
