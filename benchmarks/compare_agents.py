"""Agents at equal tokens or equal seconds on one space: search loss, and losses on a text that no search saw.

    python benchmarks/compare_agents.py --model DIR --data FILE --test FILE [--agents a,b:key=value;key=value]
        [--seeds 5] [--tokens 400000] [--seconds S] [--budget params=0.5] [--space width] [--device cpu] [--jobs 1]
        [--out FILE.jsonl] [--plot FILE.svg] [--json]
    python benchmarks/compare_agents.py --report-only --out FILE.jsonl [--plot FILE.svg] [--json]

Every agent gets the same network, level store, splits and limit; seeds differ in the agent's randomness only. With
--seconds alone there is no limit of tokens; what falls or widens with the tokens spent then stays as it starts.
Whenever a search's answer changes it is noted, and scored afterwards on the whole search split, outside the limits:
these are the learning curves. Outcomes go to --out as they are finished; the same command again does the rest only.
Run several jobs with OMP_NUM_THREADS=1, and one when seconds matter. The last line with --json is one JSON object.
"""

import argparse
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from common import Setup, agent_of, command, parser_of, prepare, specs, spread
from curves import check_matplotlib, curve_of, plot
from outcomes import Outcome, Record, print_table, rows_of

from autoprune.errors import LimitReached, UserError
from autoprune.objective import Limits

AGENTS = "uniform,random,greedy,evopress,evolution,ppo,maskable-ppo,dqn,ddpg,sac,td3"
DETERMINISTIC = ("uniform", "greedy")  # one seed is enough
TOKENS = 400_000


@dataclass(frozen=True)
class Search:
    """One agent, one seed."""

    setup: Setup
    agent: str
    seed: int
    limits: Limits
    points: int


def main() -> None:
    args = arguments()
    if args.plot:
        check_matplotlib()
    if args.test is None and not args.report_only:
        raise UserError("--test FILE is needed: the text that no search sees.")
    record = Record(Path(args.out), None) if args.report_only else searched(args)
    chosen = specs(args.agents) if args.agents else [*specs(AGENTS), *(o.agent for o in record.outcomes)]
    rank = {agent: i for i, agent in reversed(list(enumerate(chosen)))}
    outcomes = sorted((o for o in record.outcomes if o.agent in rank), key=lambda o: (rank[o.agent], o.seed))
    if not outcomes:
        raise UserError("there are no outcomes of these agents.")
    rows = rows_of(outcomes, args.against)
    print(f"dense: test ce {record.subject['dense_test_ce']:.4f}\n")
    print_table(rows, args.against)
    if args.plot:
        curves = {agent: [o.curve for o in outcomes if o.agent == agent] for agent in rows}
        plot(curves, Path(args.plot), title(record.subject))
    if args.json:
        told = [{key: value for key, value in asdict(o).items() if key != "history"} for o in outcomes]
        print(dumps({**record.subject, "agents": rows, "outcomes": told}))


def searched(args: argparse.Namespace) -> Record:
    """The record, with every search that it lacked."""
    agents = specs(args.agents or AGENTS)
    masks = [getattr(agent_of(agent), "masks", False) for agent in agents]  # mistakes are found before anything is done
    setup = Setup.of(args, masks=any(masks))
    tokens = TOKENS if args.tokens is None and args.seconds is None else args.tokens
    limits = Limits(tokens=tokens, seconds=args.seconds)
    bench = prepare(setup)
    dense_ce = bench.test_losses(bench.assembly.space.dense)[1]
    subject = {**setup.told(), "tokens": tokens, "seconds": args.seconds, "dense_test_ce": round(dense_ce, 6)}
    record = Record(Path(args.out) if args.out else None, subject)
    done = {(o.agent, o.seed) for o in record.outcomes}
    asked = [(a, seed) for seed in range(args.seeds) for a in agents if seed == 0 or a not in DETERMINISTIC]
    work = [Search(setup, *one, limits, args.points) for one in asked if one not in done]
    if args.jobs > 1 and args.seconds is not None:
        print("# searches side by side take seconds from each other: --jobs 1 compares them", file=sys.stderr)
    for outcome in spread(attempt, work, args.jobs):
        if isinstance(outcome, Outcome):
            record.append(outcome)
        print(f"# {outcome}", file=sys.stderr, flush=True)
    return record


def attempt(search: Search) -> Outcome | str:
    """One search, or why it has no answer: that is for its agent to bear, not for the others."""
    try:
        return run(search)
    except UserError as error:
        return f"{search.agent} seed {search.seed} has NO OUTCOME: {error}"


def run(search: Search) -> Outcome:
    """One agent, one seed."""
    bench = prepare(search.setup)
    objective = bench.objective(search.limits)
    begun = time.perf_counter()
    with suppress(LimitReached), np.errstate(invalid="ignore"):
        agent_of(search.agent).search(objective, np.random.default_rng(search.seed))
    seconds = time.perf_counter() - begun
    best, spent = objective.best, objective.spent
    curve = curve_of(bench, objective.incumbents, search.points)
    curve.append((spent.tokens, max(seconds, spent.seconds), curve[-1][2]))  # where it ended
    kl, ce = bench.test_losses(best)
    levels = best if isinstance(best, tuple) else tuple(objective.space.kept(best))
    return Outcome(
        search.agent, search.seed, curve[-1][2], kl, ce, spent.tokens, spent.evals, seconds, levels, curve,
        objective.history,
    )  # fmt: skip


def title(subject: dict[str, Any]) -> str:
    """What the plot is of."""
    name = Path(subject["model"]).name if subject["model"] else "embedded model"
    budget = ", ".join(f"{metric}={bound:g}" for metric, bound in subject["budgets"].items())
    shares = [("tokens", f"{subject['tokens'] or 0:,} tokens"), ("seconds", f"{subject['seconds'] or 0:g} s")]
    return f"{name}, {budget}, {' and '.join(told for key, told in shares if subject[key] is not None)} a search"


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0], test=True)
    parser.add_argument("--agents", help=AGENTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, help=f"limit of each search; {TOKENS:,} where there is none of seconds")
    parser.add_argument("--seconds", type=float, help="limit of each search")
    parser.add_argument("--points", type=int, default=20, help="of a learning curve, at most")
    parser.add_argument("--against", default="evopress", help="the agent that differences are to")
    parser.add_argument("--out", metavar="FILE.jsonl")
    parser.add_argument("--plot", metavar="FILE.svg")
    parser.add_argument("--report-only", action="store_true", help="nothing is run: table and plot of --out")
    args = parser.parse_args()
    if args.report_only and not args.out:
        parser.error("--report-only needs --out FILE.jsonl")
    return args


if __name__ == "__main__":
    command(main)
