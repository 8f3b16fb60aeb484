"""Whether networks pruned to a latency, measured whole, take what the table said and what the budget allows.

    python benchmarks/latency.py --model DIR --data FILE [--budget latency=0.6] [--device cuda] [--phase decode]

Builds the table, or takes it from the cache. Policies that use the budget fully: the uniform one and random ones, a
seed each. All of them are measured on the live network, the first `--exports` also as directories of the exporter `hf`,
loaded again; in rounds, in random order, medians over rounds. Errors are of the table's sum and of the budget relative
to what was measured; the budget's is of networks that were exported, where there are any. A machine may have become
faster or slower since the table was built: `of dense` is what was measured relative to the dense network in the same
rounds, whose error against the budget's share of the table's dense is free of that.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command, parser_of

from autoprune.assembly import Assembly, assemble
from autoprune.budgets import latency
from autoprune.config import load_config, parse_budget, parse_override
from autoprune.provenance import make_policy
from autoprune.space import Levels
from autoprune.study import export_policy
from autoprune.tasks.text_passes import pass_of


@dataclass(frozen=True)
class Measured:
    """A whole network.

    Args:
        name: of its policy.
        predicted: the table's sum, ms.
        ms: the median over rounds.
        spread: half of the distance between the quartiles, relative to the median.
        exported: whether it is a directory that was loaded again.
    """

    name: str
    predicted: float
    ms: float
    spread: float
    exported: bool

    @property
    def error(self) -> float:
        """Of the prediction."""
        return self.predicted / self.ms - 1


def main() -> None:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--phase", choices=["prefill", "decode"], default="prefill")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--context", type=int, help="positions; none is sequence_length")
    parser.add_argument("--seeds", type=int, default=5, help="random policies")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--exports", type=int, default=1, help="policies that are exported and loaded again")
    args = parser.parse_args()
    config = config_of(args)
    assembly = assemble(config, lambda stage, share: print(stage) if share == 0 else None)
    space, table = assembly.space, assembly.metrics["latency"]
    policies = {"uniform": space.uniform()}
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        levels = tuple(int(level) for level in rng.integers(space.n_levels_U))
        policies[f"random {seed}"] = space.repair(levels, rng)
    rows = measured(assembly, {"dense": space.dense} | policies, args.rounds, list(policies)[: args.exports])
    report(rows, space.budgets["latency"], table, args.json)


def config_of(args: argparse.Namespace) -> Any:
    """The search's configuration."""
    workload = {"phase": args.phase, "batch": args.batch, "context": args.context}
    own = {"model": args.model, "data": args.data, "space": args.space, "device": args.device, "agent": "uniform"}
    budgets = dict(parse_budget(text) for text in args.budget or ["latency=0.6"])
    return load_config(None, own | {"budgets": budgets, "workload": workload} | dict(map(parse_override, args.set)))


def measured(assembly: Assembly, policies: dict[str, Levels], rounds: int, exports: list[str]) -> list[Measured]:
    """Every policy on the live network, and some as exported, round after round."""
    space, view, workload = assembly.space, assembly.view, assembly.config.workload_of()
    device = next(view.model.parameters()).device
    timed: dict[tuple[str, bool], Callable[[], float]] = {}

    def live(policy: Levels) -> float:
        latency.place(view, space.levels_of(policy))
        return latency.best_seconds(assembly.task.forward_pass(view, workload), device)

    def loaded(model: Any) -> float:
        return latency.best_seconds(pass_of(model, workload), device)

    for name in exports:
        model = reloaded(assembly, policies[name])
        timed[name, True] = lambda model=model: loaded(model)
    for name, policy in policies.items():
        timed[name, False] = lambda policy=policy: live(policy)
    names, rng, ms_RN = list(timed), np.random.default_rng(0), np.zeros((rounds + 1, len(timed)))
    for r in range(rounds + 1):
        for n in rng.permutation(len(names)):
            ms_RN[r, n] = 1e3 * timed[names[n]]()
    latency.place(view, [unit.groups for unit in space.units])
    low_N, middle_N, high_N = np.quantile(ms_RN[1:], [0.25, 0.5, 0.75], axis=0)
    return [
        Measured(name, space.cost(policies[name], "latency"), float(ms), float((high - low) / 2 / ms), exported)
        for (name, exported), low, ms, high in zip(names, low_N, middle_N, high_N, strict=True)
    ]


def reloaded(assembly: Assembly, levels: Levels) -> Any:
    """A policy's network, exported and loaded in the dtype of the search."""
    from transformers import AutoModelForCausalLM

    dtype, device = next(assembly.view.model.parameters()).dtype, assembly.config.device
    with tempfile.TemporaryDirectory() as folder:
        path = export_policy(assembly, make_policy(assembly, levels, {}), Path(folder) / "network", "hf")
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval().requires_grad_(False)


def report(rows: list[Measured], budget: float, table: Any, as_json: bool) -> None:
    """The table of predicted and measured, and its largest errors."""
    about = table.measured_on
    print(
        f"{about['device']}, {about['threads']} threads, torch {about['torch']}, {about['dtype']}, {about['workload']}"
    )
    print(
        f"budget {budget:.3f} ms, fixed {table.fixed:.3f} ms, "
        f"table within {table.largest_error:.1%} when it was built\n"
    )
    dense = next(row for row in rows if row.name == "dense")
    share = budget / dense.predicted
    columns = f"{'predicted ms':>12s} {'measured ms':>12s} {'spread':>7s} {'error':>7s} {'budget':>7s} {'of dense':>9s}"
    print(f"{'network':22s} {columns}")
    for row in rows:
        name = f"{row.name}{', exported' if row.exported else ''}"
        against = "" if row.name == "dense" else f"{budget / row.ms - 1:+7.1%}"
        print(
            f"{name:22s} {row.predicted:12.3f} {row.ms:12.3f} {row.spread:7.1%} {row.error:+7.1%} {against:>7s} "
            f"{row.ms / dense.ms:9.3f}"
        )
    pruned = [row for row in rows if row.name != "dense"]
    shipped = [row for row in pruned if row.exported] or pruned
    summary = {
        "largest_error": max(abs(row.error) for row in rows),
        "largest_budget_error": max(abs(row.ms / budget - 1) for row in shipped),
        "largest_budget_error_live": max(abs(row.ms / budget - 1) for row in pruned),
        "largest_share_error": max(abs(row.ms / dense.ms / share - 1) for row in pruned),
    }
    print(f"\nlargest error of the table {summary['largest_error']:.1%}")
    against = f"exported {summary['largest_budget_error']:.1%}, all {summary['largest_budget_error_live']:.1%}"
    print(f"largest error against the budget: {against}; as a share of dense {summary['largest_share_error']:.1%}")
    if as_json:
        own = {"budget_ms": budget, "fixed_ms": table.fixed, "measured_on": about, "gpu": torch.cuda.is_available()}
        print(json.dumps(own | summary | {"networks": [vars(row) | {"error": row.error} for row in rows]}))


if __name__ == "__main__":
    command(main)
