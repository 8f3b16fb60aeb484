"""What a user gets and waits for: whole commands with several agents, and the exported networks on a text of their own.

    python benchmarks/whole_command.py --model DIR --data FILE --test FILE [--agents uniform,random,...]
        [--budgets params=0.5,params=0.7] [--seeds 3] [--tokens 400000] [--device cpu] [--jobs 1] [--set KEY=VALUE]

Every search is `autoprune search` and every export `autoprune export --to hf`, each in a process of its own. The
exported networks are then read with transformers alone, in the checkpoint's dtype, on the test text in windows of
1,024 tokens: perplexity, and the Kullback-Leibler divergence from the dense network in nats per token.

The first search is run by itself with an empty cache, so that its seconds are those of a first command. With --jobs 1
the seconds of all others are comparable too (they find moments and levels in the cache); with more, they share the
machine. The last line with --json is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import mean_sd
from transformers import AutoModelForCausalLM, AutoTokenizer

import autoprune  # noqa: F401  # makes exports known to transformers

AGENTS = "evolution,uniform,random,evopress,ppo,policy-gradient"
DETERMINISTIC = ("uniform", "greedy")  # one seed is enough
WINDOW = 1024


@dataclass(frozen=True)
class Case:
    """One search, and what came of it."""

    budget: str
    agent: str
    seed: int
    search_seconds: float = 0.0
    export_seconds: float = 0.0
    tokens: int = 0
    kl: float = float("nan")
    perplexity: float = float("nan")

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.budget.replace('=', '-')}-{self.agent}-s{self.seed}"


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["AUTOPRUNE_CACHE"] = str(folder / "cache")
        first, *rest = cases(args)
        done = [searched(args, folder, first)]
        print(f"# first command, empty cache: {done[0]}", file=sys.stderr, flush=True)
        with ThreadPoolExecutor(args.jobs) as pool:
            done += pool.map(lambda case: searched(args, folder, case), rest)
        dense, rows = measured(args, folder, done)
    table(dense, rows)
    if args.json:
        print(json.dumps({"dense_perplexity": dense, "cases": [asdict(row) for row in rows]}))


def cases(args: argparse.Namespace) -> list[Case]:
    """All searches, in the order given."""
    return [
        Case(budget, agent, seed)
        for budget in args.budgets.split(",")
        for agent in args.agents.split(",")
        for seed in range(1 if agent in DETERMINISTIC else args.seeds)
    ]


def searched(args: argparse.Namespace, folder: Path, case: Case) -> Case:
    """The case with its seconds; its network is in the folder."""
    run, out = folder / "runs" / case.name, folder / "exports" / case.name
    begun = time.perf_counter()
    told = command(
        "search", "--model", args.model, "--data", args.data, "--budget", case.budget, "--agent", case.agent,
        "--seed", str(case.seed), "--max-tokens", str(args.tokens), "--device", args.device, "--out", str(run),
        *args.set,
    )  # fmt: skip
    searching = time.perf_counter() - begun
    command("export", str(run), str(out), "--to", "hf")
    exporting = time.perf_counter() - begun - searching
    return Case(case.budget, case.agent, case.seed, searching, exporting, told["spent"]["tokens"])


def command(*arguments: str) -> dict[str, Any]:
    """One command in a fresh process, its JSON."""
    call = [sys.executable, "-m", "autoprune", *arguments, "--json"]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"`{' '.join(call)}` failed:\n{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@torch.no_grad()
def measured(args: argparse.Namespace, folder: Path, done: list[Case]) -> tuple[float, list[Case]]:
    """Perplexity of the dense network, and the cases with their test numbers."""
    dense = loaded(args.model, args.device)
    exports = [loaded(folder / "exports" / case.name, args.device) for case in done]
    tokens = AutoTokenizer.from_pretrained(args.model)(Path(args.test).read_text(encoding="utf-8"))["input_ids"]
    windows_NT = torch.tensor(tokens[: len(tokens) // WINDOW * WINDOW]).view(-1, WINDOW)[: args.windows]
    kl_C, ce_C = (torch.zeros(len(done) + 1, dtype=torch.float64, device=args.device) for _ in range(2))
    for window_1T in windows_NT.to(args.device).split(1):
        p_TV = dense(window_1T).logits[0, :-1].float().log_softmax(-1)
        for c, model in enumerate([None, *exports]):
            q_TV = p_TV if model is None else model(window_1T).logits[0, :-1].float().log_softmax(-1)
            kl_C[c] += (p_TV.exp() * (p_TV - q_TV)).sum(-1).mean() / len(windows_NT)
            ce_C[c] -= q_TV.gather(1, window_1T[0, 1:, None]).mean() / len(windows_NT)
    dense_perplexity, *perplexities = ce_C.exp().tolist()
    numbers = zip(done, kl_C.tolist()[1:], perplexities, strict=True)
    return dense_perplexity, [replace(case, kl=kl, perplexity=perplexity) for case, kl, perplexity in numbers]


def loaded(path: str | Path, device: str) -> Any:
    """A network in the checkpoint's dtype."""
    return AutoModelForCausalLM.from_pretrained(path, dtype="auto").to(device).eval()


def groups(rows: list[Case]) -> Iterator[tuple[str, str, list[Case]]]:
    """Rows of one budget and agent at a time."""
    for key in dict.fromkeys((row.budget, row.agent) for row in rows):
        yield *key, [row for row in rows if (row.budget, row.agent) == key]


def table(dense: float, rows: list[Case]) -> None:
    """Means ± standard deviations over seeds; ratios to uniform, the baseline of the same run."""
    print(f"dense: perplexity {dense:.2f}\n")
    print(
        f"{'budget':12s} {'agent':16s} {'n':>2s} {'KL':>17s} {'of uniform':>10s} {'perplexity':>16s} {'tokens':>8s} "
        f"{'search s':>14s} {'export s':>8s}"
    )
    uniform = {budget: mine[0].kl for budget, agent, mine in groups(rows) if agent == "uniform"}
    for budget, agent, mine in groups(rows):
        kl, perplexity, searching = (
            mean_sd([getattr(row, key) for row in mine]) for key in ("kl", "perplexity", "search_seconds")
        )
        ratio = f"{kl[0] / uniform[budget]:.3f}" if budget in uniform else ""
        exporting = mean_sd([row.export_seconds for row in mine])[0]
        print(
            f"{budget:12s} {agent:16s} {len(mine):2d} {kl[0]:8.4f} ± {kl[1]:6.4f} {ratio:>10s} {perplexity[0]:8.2f} ± "
            f"{perplexity[1]:5.2f} {mine[0].tokens:8d} {searching[0]:7.1f} ± {searching[1]:4.1f} {exporting:8.1f}"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="the text that is calibrated and searched with")
    parser.add_argument("--test", required=True, help="a text that no search sees")
    parser.add_argument("--agents", default=AGENTS)
    parser.add_argument("--budgets", default="params=0.5,params=0.7")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--windows", type=int, help="of the test text, at most")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="searches side by side")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
