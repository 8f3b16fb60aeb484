"""Perplexity after recovery of what one, two and four rounds find at equal total tokens.

    python benchmarks/rounds.py --model DIR --data FILE --test FILE --json

Every run spends `--tokens` on its searches and on the training between them (autoprune search --rounds N), and its
network is recovered with `--recovery-tokens`. A token of training is charged as four of search. Half of what several
rounds spend is training between them. So there is one more row of one round, `1, longer recovery`: it searches as long
as several rounds do, and what they train between rounds is added to its recovery. Without --model and --data the
embedded network and Python's documentation are taken. Without --test perplexities are of the validation split. A line
with each run is appended to `--out` as soon as it is there, and a second call skips the runs that it has.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import command, mean_sd

import autoprune
from autoprune.display import print_table
from autoprune.errors import UserError
from autoprune.rounds.plan import TRAINED
from autoprune.rounds_file import read_rounds
from autoprune.written import parse_override

CHARGED = 4
"""Tokens of search that a token of training with a teacher is charged as."""
LONGER = "1, longer recovery"
STAGES = ("found", "recovered")
COLUMNS = ("rounds", *STAGES, "kl, recovered", "search tokens", "trained between", "trained last", "minutes")

Row = dict[str, Any]


def main() -> None:
    args = arguments()
    out = args.out or Path(tempfile.mkdtemp()) / "rounds.jsonl"
    rows = known(out, args)
    done = {(row["rounds"], row["seed"]) for row in rows}
    names = [LONGER, *(text for text in args.rounds.split(",") if text)]
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in names:
            if (name, seed) not in done:
                rows.append(measured(name, seed, args) | common_settings(args))
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print("#", json.dumps(rows[-1]), flush=True)
    summary = {name: summed([row for row in rows if row["rounds"] == name]) for name in names}
    dense = rows[0]["dense"]
    title = f"perplexity, {len({row['seed'] for row in rows})} seeds; dense {dense:.2f}"
    print_table(title, COLUMNS, [line(name, row) for name, row in summary.items()])
    if args.json:
        print(json.dumps({"dense": dense, "rounds": summary, "settings": common_settings(args)}))


def common_settings(args: argparse.Namespace) -> Row:
    """What must be equal for rows to be compared."""
    names = {name: getattr(args, name) and Path(getattr(args, name)).name for name in ("model", "data", "test")}
    others = ("removed", "tokens", "recovery_tokens", "window", "windows", "agent", "device", "set")
    return names | {name: getattr(args, name) for name in others}


def known(out: Path, args: argparse.Namespace) -> list[Row]:
    """Rows of an earlier call.

    Raises:
        UserError: they were measured with other settings.
    """
    rows = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    for row in rows:
        changed = [key for key, value in common_settings(args).items() if row.get(key) != value]
        if changed:
            raise UserError(f"'{out}' has rows with another {', '.join(changed)}: give another --out.")
    return rows


def measured(name: str, seed: int, args: argparse.Namespace) -> Row:
    """One run and its recovery."""
    longer = name == LONGER
    tokens = args.tokens - args.tokens // TRAINED if longer else args.tokens
    recovery = args.recovery_tokens + (args.tokens // TRAINED // CHARGED if longer else 0)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("default")
        run, begun = Path(scratch) / "run", time.perf_counter()
        result = autoprune.search(
            args.model,
            args.data,
            budgets={"params": 1 - args.removed},
            agent=args.agent,
            seed=seed,
            max_tokens=tokens,
            rounds=1 if longer else int(name),
            device=args.device,
            out=run,
            **dict(parse_override(text) for text in args.set),
        )
        spent = result.spent
        del result  # its network leaves the device
        recovered: Any = autoprune.finetune(run, seed=seed, max_tokens=recovery)
        rounds = read_rounds(run)
        row: Row = {
            "rounds": name, "seed": seed, "minutes": (time.perf_counter() - begun) / 60,
            "search": spent.tokens - spent.training, "charged": spent.training,
            "between": sum(one.trained for one in rounds.done) if rounds else 0,
            "last": 0 if recovered.training is None else recovered.training.tokens,
            "kl": recovered.after.kl, "steps": [one.recovered for one in rounds.done] if rounds else [],
        }  # fmt: skip
        if not args.test:
            return row | {
                "dense": recovered.dense.perplexity,
                "found": recovered.before.perplexity,
                "recovered": recovered.after.perplexity,
            }
        networks = {
            "dense": args.model,
            "found": autoprune.load(run).export(run / "found"),
            "recovered": recovered.path,
        }
        return row | {stage: perplexity(network, args) for stage, network in networks.items()}


def perplexity(network: Path | str, args: argparse.Namespace) -> float:
    """On the test text."""
    told = autoprune.evaluate(
        network, args.test, sequence_length=args.window, max_sequences=args.windows, device=args.device
    )
    return float(told["perplexity"])


def summed(rows: list[Row]) -> Row:
    """Means over the seeds, and standard deviations of perplexities."""
    told: Row = {"seeds": len(rows)}
    for key in (*STAGES, "kl"):
        told[key], told[f"{key}_sd"] = mean_sd([row[key] for row in rows])
    return told | {key: mean_sd([row[key] for row in rows])[0] for key in ("search", "between", "last", "minutes")}


def line(name: str, row: Mapping[str, Any]) -> list[str]:
    """Of the table."""
    spread = [f"{row[stage]:.2f} ± {row[f'{stage}_sd']:.2f}" for stage in STAGES]
    tokens = [f"{row[key]:,.0f}" for key in ("search", "between", "last")]
    return [name, *spread, f"{row['kl']:.4f} ± {row['kl_sd']:.4f}", *tokens, f"{row['minutes']:.2f}"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="directory in Hugging Face form; none is the embedded model")
    parser.add_argument("--data", help="text to calibrate, search and recover with")
    parser.add_argument("--test", help="text that is only measured on; it needs --model")
    parser.add_argument("--rounds", default="1,2,4", metavar="N,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--removed", type=float, default=0.5, help="share of the parameters in units")
    parser.add_argument("--tokens", type=int, default=2_000_000, help="searches and the training between them")
    parser.add_argument("--recovery-tokens", type=int, default=500_000, help="trained on behind the last round")
    parser.add_argument("--agent", default="evolution")
    parser.add_argument("--window", type=int, default=512, help="tokens in a sequence of the test text")
    parser.add_argument("--windows", type=int, default=100_000, help="number of these sequences, at most")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the searches")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="rows are appended here, and those that it has are skipped")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
