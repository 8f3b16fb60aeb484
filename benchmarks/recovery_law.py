"""Does the law of recovery foretell what more tokens buy? Trainings of one pruned network, each with its own schedule.

    python benchmarks/recovery_law.py --tokens 100000,200000,400000 --json
    python benchmarks/recovery_law.py --model DIR --data FILE --tokens 60000,120000 --set sequence_length=128 --json

One policy is trained for each number of tokens, from the same start. For each training the table has the loss at its
end, how far the law of its first half was from its second half at most (`missed`), and what its law foretells for the
next number of tokens, beside what that training then gave. `plain` is the same law in plain tokens, without the root of
the learning rate.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Setup, command, parser_of

from autoprune import study, training
from autoprune.config import load_config
from autoprune.display import print_table
from autoprune.recovery import finetuning
from autoprune.recovery.forecasting import law_of_losses, step_tokens
from autoprune.recovery.law import Law, fit_law
from autoprune.training.curve import read_curve
from autoprune.written import parse_override

COLUMNS = ("tokens", "points", "loss at the end", "missed", "foretold for the next", "interval", "plain", "measured")

Row = dict[str, Any]


def main() -> None:
    args = arguments()
    lengths = sorted(int(one) for one in args.tokens.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        config = load_config(None, json.loads(Setup.of(args, seed=args.seed).settings) | {"agent": args.agent})
        result = study.start(config, Path(scratch) / "run")
        rows = [measured(result, args, tokens, Path(scratch) / str(tokens)) for tokens in lengths]
    for row, after in itertools.pairwise(rows):
        foretell(row, after)
    print_table("validation losses", COLUMNS, [line(row) for row in rows])
    if args.json:
        print(json.dumps({"settings": Setup.of(args).told(), "rows": rows}))


def measured(result: study.SearchResult, args: argparse.Namespace, tokens: int, folder: Path) -> Row:
    """One training from the refitted network."""
    assembly = result.assembly
    examples = assembly.task.training(assembly)
    student = finetuning.cut_out(assembly, result.policy, refit=True)
    given = {"max_tokens": tokens, "law": args.law, "seed": args.seed} | dict(map(parse_override, args.tune))
    settings = training.settings_of(examples.defaults, given)
    start, begun = examples.measured(student).loss, time.perf_counter()
    trained = training.train(student, examples, settings, folder)
    seconds = time.perf_counter() - begun
    losses = {0: start} | read_curve(folder) | {trained.steps: examples.measured(student).loss}
    row = {
        "tokens": trained.tokens, "steps": trained.steps, "step_tokens": step_tokens(examples, settings),
        "warmup": settings.warmup, "losses": losses, "end": losses[trained.steps], "seconds": seconds,
        "dense": examples.measured(examples.dense).loss,
    }  # fmt: skip
    print("#", json.dumps(row), flush=True)
    return row


def laws(row: Row) -> tuple[Law | None, Law | None]:
    """The law of a training, and the one in plain tokens."""
    each, steps = row["step_tokens"], row["steps"]
    plain = fit_law([(step * each, loss) for step, loss in row["losses"].items()], steps * each, steps * each)
    return law_of_losses(row["losses"], steps, row["warmup"], each), plain


def foretell(row: Row, after: Row) -> None:
    """Put what the laws of a training foretell for a longer one beside what that gave."""
    law, plain = laws(row)
    if law is None or plain is None:
        return
    times = after["tokens"] / row["tokens"]
    ahead = law.forecast(times)
    row |= {
        "missed": law.missed, "foretold": ahead.loss, "interval": [ahead.low, ahead.high],
        "plain": plain.forecast(times).loss, "next": after["end"], "error": ahead.loss - after["end"],
        "inside": ahead.low <= after["end"] <= ahead.high,
    }  # fmt: skip


def line(row: Row) -> list[str]:
    """Of the table."""
    law = laws(row)[0]
    known = [f"{row['tokens']:,}", str(len(row["losses"])), f"{row['end']:.4f}"]
    known.append("" if law is None else f"{law.missed:.4f}")
    if "foretold" not in row:
        return [*known, *[""] * 4]
    low, high = row["interval"]
    return [*known, f"{row['foretold']:.4f}", f"{low:.4f} to {high:.4f}", f"{row['plain']:.4f}", f"{row['next']:.4f}"]


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="100000,200000,400000", help="of each training, with commas")
    parser.add_argument("--agent", default="uniform")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--law", type=float, default=1.0, help="the share of the training that measuring may take")
    parser.add_argument("--tune", action="append", default=[], metavar="KEY=VALUE", help="settings of fine-tuning")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
