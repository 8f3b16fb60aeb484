"""Learned masks against metrics without a search: KL to the dense network on a text that neither saw.

    python benchmarks/masks.py --model DIR --data FILE --test FILE [--kept 0.7,0.5] [--tokens 200000] [--seeds 5]
        [--jobs 1] [--device cpu] [--json]

The metrics score every KV group and every neuron once, from weights and moments of the same reconstruction split, and
one threshold over all units cuts them to the budget, as in Wanda-structured and FLAP (An et al. 2024):

- wanda: |W| times the norm of the inputs, summed over a group's columns, standardised within each unit (as FLAP);
- energy: the same squared: the energy that a group adds to the consumer's output. FLAP has the inputs' variance in the
  place of their second moment, and mends the mean with a bias.

Each is measured as it is and with consumers reconstructed by least squares, which the searches have too. The last line
is the mean difference of the learned masks to the best of the others, with the standard error over seeds.
"""

import argparse
import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import Bench, Setup, agent_of, command, mean_sd, parser_of, prepare, spread
from numpy.typing import NDArray

from autoprune.agents.projection import Projection
from autoprune.calibration.moments import collect
from autoprune.errors import LimitReached
from autoprune.levels.placing import Placer
from autoprune.mask import Mask
from autoprune.objective import Limits

AGENT = "policy-gradient-masks"


@dataclass(frozen=True)
class Search:
    """One search of masks."""

    setup: Setup
    agent: str
    seed: int
    tokens: int


def main() -> None:
    args = arguments()
    report: dict[str, Any] = {}
    for kept in (float(text) for text in args.kept.split(",")):
        setup = Setup.of(args, masks=True, budgets={"params": kept})
        rows = {name: [loss] for name, loss in metrics(prepare(setup)).items()}
        work = [Search(setup, args.agent, seed, args.tokens) for seed in range(args.seeds)]
        rows["learned"] = list(spread(learned, work, args.jobs))
        prepare.cache_clear()
        report[f"params={kept:g}"] = rows
        show(kept, rows)
    if args.json:
        print(json.dumps(report))


def metrics(bench: Bench) -> dict[str, float]:
    """Test losses of masks that need no search."""
    assembly, test = bench.assembly, bench.test
    assert test is not None
    space, plain = assembly.space, Placer(assembly.view, assembly.space, assembly.store)
    masks = {name: cut(bench, power) for name, power in (("wanda", 1), ("energy", 2))}
    losses = {"uniform levels, reconstructed": bench.test_losses(space.uniform())[0]}
    for name, mask in masks.items():
        losses[f"{name}, reconstructed"] = bench.test_losses(mask)[0]
        test.placer = plain
        losses[name] = bench.test_losses(mask)[0]
        test.placer = assembly.placer
    return losses


def cut(bench: Bench, power: int) -> Mask:
    """The mask of a metric, cut to the budget by one threshold."""
    assembly = bench.assembly
    assembly.placer.release()
    tokens_NT = assembly.splits.reconstruction.to(assembly.config.device)
    moments = collect(assembly.view, tokens_NT, assembly.config.batch_size())  # in the order that the network has now
    scores = []
    for widths, row in zip(assembly.view.widths, moments, strict=True):
        for width, h_DD in zip(widths, row, strict=True):
            weight_OD = width.consumer_weight.double().cpu()
            norm_D = h_DD.diagonal().clamp_min(0).sqrt()
            score_G = ((weight_OD.abs() * norm_D) ** power).sum(0).view(width.width.groups, -1).sum(1).numpy()
            scores.append(standardised(score_G))
    project = Projection(assembly.space)
    return project.pack(project(np.concatenate(scores))[0])


def standardised(score_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Zero mean and unit variance within a unit."""
    return np.asarray((score_G - score_G.mean()) / max(float(score_G.std()), 1e-12))


def learned(search: Search) -> float:
    """Test loss of what one search finds."""
    bench = prepare(search.setup)
    objective = bench.objective(Limits(tokens=search.tokens))
    with suppress(LimitReached), np.errstate(invalid="ignore"):
        agent_of(search.agent).search(objective, np.random.default_rng(search.seed))
    loss = bench.test_losses(objective.best)[0]
    print(f"# seed {search.seed}: test KL {loss:.4f}", file=sys.stderr, flush=True)
    return loss


def show(kept: float, rows: dict[str, list[float]]) -> None:
    best = min((name for name in rows if name != "learned"), key=lambda name: rows[name][0])
    mean, sd = mean_sd(rows["learned"])
    print(f"\n{kept:.0%} of the parameters kept       test KL   / learned")
    for name, losses in rows.items():
        spread_ = f" ± {mean_sd(losses)[1]:.4f}" if len(losses) > 1 else ""
        print(f"{name:32s} {np.mean(losses):8.4f}   {np.mean(losses) / mean:9.2f}{spread_}")
    error = sd / len(rows["learned"]) ** 0.5
    print(f"learned - {best}: {mean - rows[best][0]:+.4f} ± {error:.4f} (standard error)")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0], test=True)
    parser.add_argument("--kept", default="0.7,0.5", help="shares of the parameters, a comparison each")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--agent", default=AGENT, help="with its settings, as name:key=value;key=value")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
