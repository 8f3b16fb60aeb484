"""What a user gets and waits for: whole commands with several agents, and the exported networks on a text of their own.

    python benchmarks/whole_command.py --model DIR --data FILE --test FILE [--agents uniform,random,...]
        [--budgets params=0.5,params=0.7] [--seeds 3] [--tokens 400000] [--device cpu] [--jobs 1] [--set KEY=VALUE]

First the default command, `autoprune search` with nothing but model, text, budget and device, and its export are timed
by themselves with an empty cache. Then the agents search, by `autoprune compare` of each budget, and every answer is
exported by `autoprune export --to hf`. The exported networks are read with transformers alone, in the checkpoint's
dtype, on the test text in windows of 1,024 tokens: perplexity, and the Kullback-Leibler divergence from the dense
network in nats per token. With --jobs above 1, budgets and exports share the machine, and only the first command's
seconds mean something. The last line with --json is one JSON object.
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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import mean_sd
from transformers import AutoModelForCausalLM, AutoTokenizer

import autoprune  # noqa: F401  # makes exports known to transformers

AGENTS = "evolution,uniform,random,evopress,ppo,policy-gradient"
WINDOW = 1024
WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class Case:
    """One search, and what came of it."""

    budget: str
    agent: str
    seed: int
    tokens: int = 0
    seconds: float = 0.0
    kl: float = float("nan")
    perplexity: float = float("nan")

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.budget.replace('=', '-')}/{self.agent}-s{self.seed}"


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["AUTOPRUNE_CACHE"] = str(folder / "cache")
        first = first_command(args, folder)
        print(f"first command, empty cache: search {first[0]:.1f} s, export {first[1]:.1f} s", flush=True)
        with ThreadPoolExecutor(args.jobs) as pool:
            done = [
                case for found in pool.map(partial(compared, args, folder), args.budgets.split(",")) for case in found
            ]
            list(pool.map(lambda case: exported(folder, case), done))
        dense, rows = measured(args, folder, done)
    table(dense, rows)
    if args.json:
        numbers = {"dense_perplexity": dense, "first_search_seconds": first[0], "first_export_seconds": first[1]}
        print(json.dumps(numbers | {"cases": [asdict(row) for row in rows]}))


def first_command(args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Seconds of the default search, and of the export of its answer."""
    run, budget = folder / "first", args.budgets.split(",")[0]
    begun = time.perf_counter()
    command("search", *given(args), "--budget", budget, "--out", str(run))
    searched = time.perf_counter()
    command("export", str(run), str(folder / "first-export"), "--to", "hf")
    return searched - begun, time.perf_counter() - searched


def given(args: argparse.Namespace) -> list[str]:
    """What all searches have in common."""
    return ["--model", args.model, "--data", args.data, "--device", args.device, *args.set]


def compared(args: argparse.Namespace, folder: Path, budget: str) -> list[Case]:
    """The searches of one budget."""
    out = folder / "runs" / budget.replace("=", "-")
    limits = ["--seeds", str(args.seeds), "--max-tokens", str(args.tokens)]
    command("compare", *given(args), "--budget", budget, "--agents", args.agents, *limits, "--out", str(out))
    cases = []
    for agent in args.agents.split(","):
        for seed in range(args.seeds):
            case = Case(budget, agent, seed)
            result = folder / "runs" / case.name / "result.json"
            if result.exists():
                spent = json.loads(result.read_text(encoding="utf-8"))["spent"]
                cases.append(replace(case, tokens=spent["tokens"], seconds=spent["seconds"]))
    return cases


def exported(folder: Path, case: Case) -> None:
    """The network of a case, in the folder."""
    command("export", str(folder / "runs" / case.name), str(folder / "exports" / case.name), "--to", "hf")


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
    for window_BT in windows_NT.to(args.device).split(WINDOWS_AT_ONCE):
        share = len(window_BT) / len(windows_NT)
        p_BTV = dense(window_BT).logits[:, :-1].float().log_softmax(-1)
        for c, model in enumerate([None, *exports]):
            q_BTV = p_BTV if model is None else model(window_BT).logits[:, :-1].float().log_softmax(-1)
            kl_C[c] += share * (p_BTV.exp() * (p_BTV - q_BTV)).sum(-1).mean()
            ce_C[c] -= share * q_BTV.gather(2, window_BT[:, 1:, None]).mean()
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
        f"{'search s':>14s}"
    )
    uniform = {budget: mine[0].kl for budget, agent, mine in groups(rows) if agent == "uniform"}
    for budget, agent, mine in groups(rows):
        kl, perplexity, searching = (
            mean_sd([getattr(row, key) for row in mine]) for key in ("kl", "perplexity", "seconds")
        )
        ratio = f"{kl[0] / uniform[budget]:.3f}" if budget in uniform else ""
        print(
            f"{budget:12s} {agent:16s} {len(mine):2d} {kl[0]:8.4f} ± {kl[1]:6.4f} {ratio:>10s} {perplexity[0]:8.2f} ± "
            f"{perplexity[1]:5.2f} {mine[0].tokens:8d} {searching[0]:7.1f} ± {searching[1]:4.1f}"
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
    parser.add_argument("--jobs", type=int, default=1, help="budgets and exports side by side")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
