"""Quality after recovery of what each agent finds, on data that neither search nor recovery saw.

    python benchmarks/recovery.py --model DIR --data FILE --test FILE --json
    python benchmarks/recovery.py --search-tokens 100000 --recovery-tokens 100000 --json

Every agent searches with the same number of tokens, in which the training of candidates is counted, and every answer is
recovered with the same number of tokens. Three networks of each search are exported and measured on the test text, as
`autoprune evaluate` does: `found`, `refitted` (in closed form) and `recovered` (refitted and trained). A line with each
search is appended to `--out` as soon as it is there, and a second call with the same `--out` skips the searches that it
has. Agents are written as `name:key=value;key=value`.

The numbers are perplexities of a language model, and accuracies in % of a network that reads images, whose tokens are
images and whose cross-entropies are in the rows (recovery_images.py). Without --model it is the CIFAR-10 ResNet-20.
"""

import argparse
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cifar_resnet
import recovery_images
from common import command, mean_sd, specs

import autoprune
from autoprune.display import print_table
from autoprune.errors import UserError
from autoprune.written import parse_override

STAGES = ("found", "refitted", "recovered")
AGENTS = "uniform,evopress,evolution,evolution:train_tokens=4096"
COLUMNS = ("", *STAGES, "search tokens", "of training", "minutes", "recovery tokens", "minutes")

Row = dict[str, Any]


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        args.reads_images = recovery_images.chosen(args, Path(scratch))
        if not (args.data and args.test):
            raise UserError("give --data FILE to search and recover with, and --test FILE to measure on.")
        compare(args, Path(scratch))


def compare(args: argparse.Namespace, scratch: Path) -> None:
    """Measure what is new, and tell of everything."""
    out = args.out or scratch / "recovery.jsonl"
    rows = known(out, args)
    if not args.reads_images and not any(row["agent"] == "dense" for row in rows):
        rows.append({"agent": "dense", "perplexity": perplexity(args.model, args)} | common_settings(args))
        append(out, rows[-1])
    done = {(row["agent"], row["seed"]) for row in rows if row["agent"] != "dense"}
    args.dense = next((row["told"]["dense"] for row in rows if "dense" in row.get("told", {})), None)
    begun = time.perf_counter()
    for seed in range(args.first_seed, args.first_seed + args.seeds):  # a clock that runs out leaves whole seeds
        for agent in specs(args.agents):
            if (agent, seed) not in done and time.perf_counter() - begun < args.seconds:
                rows.append(measured(agent, seed, args))
                append(out, rows[-1])
    quality = "accuracy" if args.reads_images else "perplexity"
    if not rows:
        raise UserError("nothing was measured: raise --seconds.")
    dense = rows[0].get("dense", rows[0].get(quality))
    summary = {agent: summed([row for row in rows if row["agent"] == agent]) for agent in specs(args.agents)}
    title = f"{quality}, {len({row['seed'] for row in rows if 'seed' in row})} seeds; dense {dense:.2f}"
    print_table(title, COLUMNS, [line(agent, row) for agent, row in summary.items()])
    if args.json:
        print(json.dumps({"dense": dense, "quality": quality, "agents": summary, "settings": common_settings(args)}))


def common_settings(args: argparse.Namespace) -> Row:
    """What must be equal for rows to be compared."""
    own = {"metric": args.metric} if args.metric != "params" else {}  # rows of older calls have no such key
    own |= {"depth": args.depth, "weights": args.weights.name} if args.reads_images else {}
    return {
        "model": Path(args.model).name, "data": Path(args.data).name, "test": Path(args.test).name,
        "removed": args.removed, "search_tokens": args.search_tokens, "recovery_tokens": args.recovery_tokens,
        "window": args.window, "windows": args.windows, "device": args.device, "tune": args.tune, "set": args.set,
    } | own  # fmt: skip


def known(out: Path, args: argparse.Namespace) -> list[Row]:
    """Rows of an earlier call.

    Raises:
        UserError: they were measured with other settings.
    """
    if not out.exists():
        return []
    rows = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        changed = [key for key, value in common_settings(args).items() if row.get(key) != value]
        if changed:
            raise UserError(f"'{out}' has rows with another {', '.join(changed)}: give another --out.")
    return rows


def append(out: Path, row: Row) -> None:
    """Write a row at once."""
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print("#", json.dumps(row), flush=True)


def measured(agent: str, seed: int, args: argparse.Namespace) -> Row:
    """One search and its recovery."""
    name, _, options = agent.partition(":")
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("default")
        run = Path(scratch) / "run"
        begun = time.perf_counter()
        result = autoprune.search(
            args.model,
            args.data,
            budgets={args.metric: 1 - args.removed},
            agent=name,
            agent_options=dict(parse_override(text) for text in options.split(";") if text),
            seed=seed,
            max_tokens=args.search_tokens,
            device=args.device,
            out=run,
            **{"refit": False} | dict(parse_override(text) for text in args.set),  # `found` is without it
        )
        row: Row = {"agent": agent, "seed": seed, "kl": result.loss, "spent": vars(result.spent)}
        row["minutes"] = {"search": result.spent.seconds / 60, "command": (time.perf_counter() - begun) / 60}
        if args.reads_images:
            told = dict(recovery_images.measured(result, seed, args))
            qualities = {stage: one["accuracy"] for stage, one in told.items()}
            return row | qualities | {"told": told, "recovery": told["recovered"]["training"]} | common_settings(args)
        row["found"] = perplexity(result.export(run / "found"), args)
        del result  # its network leaves the device
        for stage, network, told in recovered(run, seed, args):
            row[stage] = perplexity(network, args)
            row.setdefault("told", {})[stage] = told
        row["recovery"] = row["told"]["recovered"]["training"]
    return row | common_settings(args)


def recovered(run: Path, seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Path, Row]]:
    """The refitted network, and the trained one, each with what its command measured on the validation split."""
    tune = dict(parse_override(text) for text in args.tune)
    for stage, given in (("refitted", {"epochs": 0}), ("recovered", {"max_tokens": args.recovery_tokens, **tune})):
        begun = time.perf_counter()
        done = autoprune.finetune(run, seed=seed, **given)
        training = done.training and {"tokens": done.training.tokens, "seconds": done.training.seconds}
        told = {"validation": done.after.loss, "chosen": done.chosen, "training": training}
        yield stage, done.path, told | {"minutes": (time.perf_counter() - begun) / 60}
        shutil.rmtree(run / "finetuned")


def perplexity(network: Path | str, args: argparse.Namespace) -> float:
    """On the test text."""
    told = autoprune.evaluate(
        network, args.test, sequence_length=args.window, max_sequences=args.windows, device=args.device
    )
    return float(told["perplexity"])


def summed(rows: list[Row]) -> Row:
    """Means and standard deviations of one agent over its seeds."""
    if not rows:
        return {}
    told: Row = {stage: mean_sd([row[stage] for row in rows]) for stage in STAGES}
    told |= {stage: told[stage][0] for stage in STAGES} | {f"{stage}_sd": told[stage][1] for stage in STAGES}
    told["seeds"] = len(rows)
    for key in ("tokens", "training"):
        told[f"search_{key}"] = mean_sd([row["spent"][key] for row in rows])[0]
    told["search_minutes"] = mean_sd([row["minutes"]["search"] for row in rows])[0]
    told["recovery_tokens"] = mean_sd([(row["recovery"] or {"tokens": 0})["tokens"] for row in rows])[0]
    told["recovery_minutes"] = mean_sd([row["told"]["recovered"]["minutes"] for row in rows])[0]
    return told


def line(agent: str, row: Mapping[str, Any]) -> list[str]:
    """Of the table."""
    if not row:
        return [agent] + [""] * (len(COLUMNS) - 1)
    spread = [f"{row[stage]:.2f} ± {row[f'{stage}_sd']:.2f}" for stage in STAGES]
    search = [f"{row['search_tokens']:,.0f}", f"{row['search_training']:,.0f}", f"{row['search_minutes']:.2f}"]
    return [agent, *spread, *search, f"{row['recovery_tokens']:,.0f}", f"{row['recovery_minutes']:.2f}"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="directory in Hugging Face form, or FILE.py:FUNCTION of a network of images")
    parser.add_argument("--data", help="text or images to calibrate, search and recover with")
    parser.add_argument("--test", help="text or images that are only measured on")
    parser.add_argument("--metric", default="params", help="of the budget")
    cifar_resnet.add_network(parser)
    parser.add_argument("--agents", default=AGENTS, metavar="NAME[:KEY=VALUE;...],...")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--removed", type=float, default=0.5, help="share of the metric in units")
    parser.add_argument("--search-tokens", type=int, default=2_000_000, help="limit of a search, its training included")
    parser.add_argument("--recovery-tokens", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=1024, help="tokens in a sequence of the test text")
    parser.add_argument("--windows", type=int, default=100_000, help="number of these sequences, at most")
    parser.add_argument("--tune", action="append", default=[], metavar="KEY=VALUE", help="settings of fine-tuning")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the searches")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no further search is begun")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="rows are appended here, and those that it has are skipped")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
