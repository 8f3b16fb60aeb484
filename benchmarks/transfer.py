"""Whether a policy learned at one budget, or on one model, helps at another: pretrained against from scratch.

    python benchmarks/transfer.py --model DIR --data FILE --test FILE [--agent ppo:key=value] [--seeds 5]
        [--source-budget params=0.6] [--source-tokens 400000] [--budget params=0.5] [--target-tokens 50000,100000]
        [--source-model DIR --source-data FILE | --from-embedded] [--device cpu] [--jobs 1] [--json]

For each seed the agent is trained on the source and saved; then it searches the target with few tokens twice, from
these weights and from fresh ones. Told for both: the loss of the choice without noise before any training on the
target, and search and test losses at the end. Source and target must have the same number of levels.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Setup, agent_of, command, difference, mean_sd, noise_free, parser_of, prepare, spread, train

from autoprune.agents.training import Training
from autoprune.errors import LimitReached, UserError
from autoprune.objective import Limits
from autoprune.space import Levels
from autoprune.written import parse_budget

MEASURES = {"first": "before", "search_kl": "search KL", "test_kl": "test KL"}


@dataclass(frozen=True)
class Seed:
    """All searches of one seed: the source's, then the target's from scratch and from what the source's saved."""

    source: Setup
    target: Setup
    agent: str
    seed: int
    source_tokens: int
    target_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of it, nats per token; `sensitivities`: whether the tokens were enough to measure them."""

    seed: int
    limit: int
    pretrained: bool
    sensitivities: bool
    first: float
    search_kl: float
    test_kl: float
    test_ce: float
    tokens: int


def main() -> None:
    args = arguments()
    source, target = setups(args)
    agent_of(args.agent)  # mistakes are found before anything is computed
    check_levels(source, target)
    seeds = [
        Seed(source, target, args.agent, seed, args.source_tokens, args.target_tokens) for seed in range(args.seeds)
    ]
    sources, outcomes = list[Outcome](), list[Outcome]()
    for first, rest in spread(searched, seeds, args.jobs):
        sources.append(first)
        outcomes += rest
        for outcome in (first, *rest):
            print(f"# {outcome}", file=sys.stderr, flush=True)
    outcomes.sort(key=lambda one: (one.limit, one.seed, one.pretrained))
    rows = [row_of(outcomes, tokens) for tokens in args.target_tokens]
    budgets = [json.loads(setup.settings)["budgets"] for setup in (source, target)]
    print(f"{args.agent}, from {budgets[0]} with {args.source_tokens} tokens to {budgets[1]}, {args.seeds} seeds\n")
    report(sources, rows)
    if args.json:
        told = {"agent": args.agent, "source": source.told(), "target": target.told(), "rows": rows}
        searches = {"sources": [asdict(one) for one in sources], "targets": [asdict(one) for one in outcomes]}
        print(json.dumps({**told, "source_tokens": args.source_tokens, **searches}))


def setups(args: argparse.Namespace) -> tuple[Setup, Setup]:
    """Source and target."""
    if args.test is None:
        raise UserError("--test FILE is needed: the text that no search sees.")
    budgets = dict(parse_budget(text) for text in args.source_budget or ["params=0.6"])
    changes: dict[str, Any] = {"budgets": budgets}
    if args.from_embedded or args.source_model is not None:
        changes |= {"model": args.source_model, "data": args.source_data}
    return Setup.of(args, **changes), Setup.of(args)


def check_levels(source: Setup, target: Setup) -> None:
    """Raise a UserError unless both spaces have the same number of levels."""
    counts = [int(prepare(setup).assembly.space.n_levels_U.max()) for setup in (source, target)]
    if counts[0] != counts[1]:
        raise UserError(f"the source has {counts[0]} levels and the target {counts[1]}: a policy needs the same ones.")


def searched(seed: Seed) -> tuple[Outcome, list[Outcome]]:
    """The source's outcome, and those of the target."""
    with tempfile.TemporaryDirectory() as folder:
        first = search(seed, seed.source, seed.source_tokens, None, Path(folder))
        pairs = [(tokens, start) for tokens in seed.target_tokens for start in (None, folder)]
        return first, [search(seed, seed.target, tokens, start) for tokens, start in pairs]


def search(seed: Seed, setup: Setup, tokens: int, pretrained: str | None, out: Path | None = None) -> Outcome:
    """One search, and the choice before it; the agent is saved where there is `out`."""
    bench, limits = prepare(setup), Limits(tokens=tokens)
    settings = {} if pretrained is None else {"pretrained": pretrained}
    agent = agent_of(seed.agent, **settings)
    chosen: list[tuple[Levels, bool]] = []

    def look(training: Training) -> None:
        chosen.append((noise_free(training.rules, training.model, bench.search), training.rules.added_UL is not None))

    train(agent, bench.objective(limits), np.random.default_rng(seed.seed), look)
    objective = bench.objective(limits)
    with suppress(LimitReached), np.errstate(invalid="ignore"):
        agent.search(objective, np.random.default_rng(seed.seed))
    if out is not None:
        agent.save(out)
    (first, sensitivities), best = chosen[0], objective.best
    before, after = bench.search_losses([first, best])
    kl, ce = bench.test_losses(best)
    spent = objective.spent.tokens
    return Outcome(seed.seed, tokens, pretrained is not None, sensitivities, before, after, kl, ce, spent)


def row_of(outcomes: Sequence[Outcome], tokens: int) -> dict[str, Any]:
    """Means and deviations of both at one limit, and the difference with its standard error, seeds paired and not."""
    mine = [one for one in outcomes if one.limit == tokens]
    row: dict[str, Any] = {"tokens": tokens, "sensitivities": all(one.sensitivities for one in mine)}
    for measure in MEASURES:
        fresh, pretrained = ([getattr(o, measure) for o in mine if o.pretrained == which] for which in (False, True))
        mean, sd = mean_sd(np.subtract(pretrained, fresh).tolist())
        row[measure] = {
            "fresh": mean_sd(fresh), "pretrained": mean_sd(pretrained), "difference": difference(pretrained, fresh),
            "paired_difference": (mean, sd / len(fresh) ** 0.5),
        }  # fmt: skip
    return row


def report(sources: Sequence[Outcome], rows: Sequence[dict[str, Any]]) -> None:
    """Means ± standard deviations over seeds; differences ± standard errors of independent samples."""
    found = [mean_sd([getattr(one, measure) for one in sources]) for measure in ("search_kl", "test_kl")]
    print(f"source: search KL {found[0][0]:.4f} ± {found[0][1]:.4f}, test KL {found[1][0]:.4f} ± {found[1][1]:.4f}\n")
    heads = " ".join(f"{name:>17s}" for name in ("from scratch", "pretrained", "difference ± se"))
    print(f"{'tokens':>8s} {'sensitivities':>14s} {'':10s} {heads}")
    for row in rows:
        for measure, name in MEASURES.items():
            cells = [row[measure][key] for key in ("fresh", "pretrained")]
            told = " ".join(f"{mean:8.4f} ± {sd:6.4f}" for mean, sd in cells)
            gap, error = row[measure]["difference"]
            known = "yes" if row["sensitivities"] else "no"
            print(f"{row['tokens']:8d} {known:>14s} {name:10s} {told} {gap:+8.4f} ± {error:6.4f}")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0], test=True)
    parser.add_argument("--agent", default="ppo")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--source-budget", action="append", metavar="METRIC=BOUND", help="params=0.6")
    parser.add_argument("--source-model", help="another model than the target's")
    parser.add_argument("--source-data")
    parser.add_argument("--from-embedded", action="store_true", help="the source is the embedded model")
    parser.add_argument("--source-tokens", type=int, default=400_000)
    parser.add_argument("--target-tokens", default="50000,100000,200000")
    args = parser.parse_args()
    args.target_tokens = tuple(int(tokens) for tokens in args.target_tokens.split(","))
    if args.from_embedded and (args.source_model or args.source_data):
        parser.error("--from-embedded is another source than --source-model and --source-data")
    return args


if __name__ == "__main__":
    command(main)
