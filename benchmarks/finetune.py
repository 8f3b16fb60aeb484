"""Language models after a search, before and after fine-tuning: perplexity over the dense network's.

A search for each seed; what it found is trained from the same start with all weights (rank 0) and with adapters, on
the run's text without its validation split, on which dense, before and after are measured. Several settings can be
given with --tune, each tried with each rank.

    python benchmarks/finetune.py --epochs 3 --lora 0,8 --seeds 2
    python benchmarks/finetune.py --model books-llama-22m --data books_calibration.txt --lora 0,8 --device cuda

Seconds are of the training, the saving of its state included, and are told over those of dense forward passes over
the tokens that were read, measured beside it.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from common import Setup, command, mean_sd, parser_of

from autoprune import study, training
from autoprune.config import load_config
from autoprune.display import print_table
from autoprune.errors import UserError
from autoprune.recovery import finetuning
from autoprune.tasks.causal_lm import CausalLM
from autoprune.tasks.text_training import DEFAULTS
from autoprune.written import parse_override

COLUMNS = ("", "perplexity / dense before", "after", "kl before", "after", "training, s", "/ dense passes")


def main() -> None:
    args = arguments()
    ways = [{"epochs": args.epochs, "lora": int(rank)} | own for own in args.tune or [{}] for rank in args.lora]
    rows: list[list[dict[str, Any]]] = [[] for _ in ways]
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(args.seeds):
            config = load_config(None, json.loads(Setup.of(args, seed=seed).settings))
            result = study.start(config, Path(scratch) / f"{seed}")
            if not isinstance(result.assembly.task, CausalLM):
                raise UserError("images are measured by benchmarks/cifar_resnet.py.")
            for i, way in enumerate(ways):
                rows[i].append(
                    measured(result, training.settings_of(DEFAULTS, way | {"seed": seed}), result.path / f"{i}")
                )
                print(f"seed {seed}: {line(way, rows[i][-1:])}", flush=True)
    print_table(f"{args.seeds} seeds", COLUMNS, [line(way, rows[i]) for i, way in enumerate(ways)])
    if args.json:
        print(json.dumps({"settings": Setup.of(args).told(), "ways": ways, "rows": rows}))


def measured(result: study.SearchResult, settled: training.TrainingSettings, folder: Path) -> dict[str, Any]:
    """One training of what a search found."""
    assembly = result.assembly
    training_set, student = assembly.task.training(assembly), finetuning.cut_out(assembly, result.policy)
    worth = {"dense": training_set.measured(training_set.dense), "before": training_set.measured(student)}
    passes = settled.epochs * training_set.count * dense_seconds(assembly, settled.at_once)
    begun = time.perf_counter()
    training.train(student, training_set, settled, folder)
    seconds = time.perf_counter() - begun
    finetuning.round_weights(assembly, student)
    worth["after"] = training_set.measured(student)
    return {name: asdict(of) for name, of in worth.items()} | {
        "tuning": asdict(settled), "seconds": seconds, "over_dense_passes": seconds / passes,
        "search_seconds": result.spent.seconds, "sequences": training_set.count,
        "dense_params": assembly.loaded.n_params,
        "params": sum(parameter.numel() for parameter in student.parameters()),
    }  # fmt: skip


@torch.no_grad()
def dense_seconds(assembly: Any, at_once: int) -> float:
    """Of a dense forward pass, a sequence; median of five."""
    tokens_BT, seconds = assembly.splits.validation[: at_once or 1].to(assembly.config.device), []
    for _ in range(6):
        begun = time.perf_counter()
        assembly.view(tokens_BT)
        if tokens_BT.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:]) / len(tokens_BT)


def line(way: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Of a table: means and standard deviations over seeds."""
    ratios = [[row[part]["perplexity"] / row["dense"]["perplexity"] for row in rows] for part in ("before", "after")]
    divergences = [[row[part]["kl"] for row in rows] for part in ("before", "after")]
    columns = [*ratios, *divergences, [row["seconds"] for row in rows], [row["over_dense_passes"] for row in rows]]
    told = [mean_sd(values) for values in columns]
    named = ", ".join(f"{key}={value}" for key, value in way.items())
    return [named, *(f"{mean:.4g} ± {sd:.2g}" if len(rows) > 1 else f"{mean:.4g}" for mean, sd in told)]


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lora", type=lambda text: text.split(","), default=["0", "8"], help="ranks; 0: all weights")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tune", type=settings, action="append", metavar="KEY=VALUE;...", help="repeatable")
    return parser.parse_args()


def settings(text: str) -> dict[str, Any]:
    """`lr=1e-4;weight=1` as a mapping."""
    return dict(parse_override(part) for part in text.split(";") if part)


if __name__ == "__main__":
    command(main)
