"""Agents at equal tokens on one space: search loss, and losses on a text that no search saw.

    python benchmarks/tournament.py --model DIR --data FILE --test FILE [--agents a,b:key=value] [--seeds 5]
        [--tokens 400000] [--budget params=0.5] [--space width] [--device cpu] [--json]

Every agent gets the same network, level store, splits and token limit; seeds differ in the agent's randomness only.
The last line with --json is one JSON object.
"""

import argparse
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autoprune.assembly import Assembly, assemble
from autoprune.calibration.text import read_text, sequences
from autoprune.config import load_config, parse_budget, parse_override
from autoprune.errors import LimitReached
from autoprune.evaluation.evaluator import Evaluator
from autoprune.objective import Limits, Objective
from autoprune.study import make_agent


@dataclass(frozen=True)
class Outcome:
    """One search: what it spent and how its answer does, nats per token."""

    agent: str
    seed: int
    search_kl: float
    test_kl: float
    test_ce: float
    tokens: int
    evals: int
    seconds: float
    levels: tuple[int, ...]


def main() -> None:
    args = arguments()
    budgets = dict(parse_budget(b) for b in args.budget or ["params=0.5"])
    settings = dict(parse_override(text) for text in args.set)
    config = load_config(
        None,
        {
            "model": args.model,
            "data": args.data,
            "budgets": budgets,
            "space": args.space,
            "device": args.device,
            **settings,
        },
    )
    assembly = assemble(config)
    tokens_NT = sequences(read_text(args.test), assembly.loaded.tokenizer, config.sequence_length)[
        : args.test_sequences
    ]
    test = assembly.evaluator(tokens_NT, "kl", "ce")
    search = assembly.evaluator(assembly.splits.search, config.loss)
    search.score([assembly.space.dense], range(search.n_sequences))  # the dense references, before any clock runs
    dense_ce = float(test.score_each([assembly.space.dense], range(len(tokens_NT)))[1].mean())
    outcomes = []
    for spec in args.agents.split(","):
        seeds = 1 if spec in ("uniform", "greedy") else args.seeds  # these draw nothing
        for seed in range(seeds):
            outcomes.append(run(assembly, search, test, spec, seed, args.tokens))
            print(f"# {spec} seed {seed}: {outcomes[-1]}", file=sys.stderr, flush=True)
    report(outcomes, dense_ce, args.json)


def run(assembly: Assembly, search: Evaluator, test: Evaluator, spec: str, seed: int, tokens: int) -> Outcome:
    """One agent, one seed."""
    name, _, options = spec.partition(":")
    settings = dict(parse_override(text) for text in options.split(";") if text)
    objective = Objective(assembly.space, search, Limits(tokens=tokens))
    begun = time.perf_counter()
    with suppress(LimitReached):
        make_agent(name, settings).search(objective, np.random.default_rng(seed))
    seconds = time.perf_counter() - begun
    best = objective.best
    kl, ce = test.score_each([best], range(test.n_sequences)).mean(axis=(1, 2))
    whole = float(search.score([best], range(search.n_sequences)).mean())
    return Outcome(
        spec, seed, whole, float(kl), float(ce), objective.spent.tokens, objective.spent.evals, seconds, best
    )


def report(outcomes: list[Outcome], dense_ce: float, as_json: bool) -> None:
    """A table of means and standard deviations over seeds."""
    rows: dict[str, dict[str, Any]] = {}
    for spec in dict.fromkeys(o.agent for o in outcomes):
        mine = [o for o in outcomes if o.agent == spec]
        rows[spec] = {"seeds": len(mine)}
        for field in ("search_kl", "test_kl", "test_ce", "tokens", "evals", "seconds"):
            values = [float(getattr(o, field)) for o in mine]
            rows[spec][field] = (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)
    print(f"dense: test ce {dense_ce:.4f}\n")
    print(f"{'agent':44s} {'search KL':>17s} {'test KL':>17s} {'test CE':>17s} {'tokens':>9s} {'evals':>6s} {'s':>6s}")
    for spec, row in rows.items():
        losses = " ".join(f"{row[f][0]:8.4f} ± {row[f][1]:6.4f}" for f in ("search_kl", "test_kl", "test_ce"))
        print(f"{spec:44s} {losses} {row['tokens'][0]:9.0f} {row['evals'][0]:6.0f} {row['seconds'][0]:6.1f}")
    if as_json:
        print(json.dumps({"dense_test_ce": dense_ce, "agents": rows, "outcomes": [asdict(o) for o in outcomes]}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--test", required=True)
    parser.add_argument("--agents", default="uniform,random,greedy,evopress,evolution")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--budget", action="append")
    parser.add_argument("--space", default="width")
    parser.add_argument("--test-sequences", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
