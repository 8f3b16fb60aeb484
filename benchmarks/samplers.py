"""The policy gradient among Optuna's samplers, at equal trials, on bits with a known optimum: regret and milliseconds.

    python benchmarks/samplers.py [--samplers random,policy-gradient,natural,nsga2,tpe,gp] [--bits 64,1000]
        [--problems linear,pairwise,deceptive] [--trials 500] [--seeds 3] [--seconds 20] [--json]

Regret is (best loss found - optimum) / (expected loss of a random point - optimum), mean ± sd over seeds: 0 is the
optimum, and a random point has 1 on average. A run that reaches --seconds ends; the row says how many trials it
got, and its regret is that of fewer trials. Seconds and milliseconds are CPU time of whole trials, most of which is
Optuna's own work; an in-memory storage, one process. `gp` needs scipy, and is left out without it.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
from common import mean_sd
from numpy.typing import NDArray

from autoprune.agents.policy_gradient_sampler import PolicyGradientSampler

Bits = NDArray[np.int64]
TRAP_LOSS = np.array([1.0, 2.0, 3.0, 4.0, 0.0])  # by how many of a block's four bits are right


@dataclass(frozen=True)
class Problem:
    """A loss over N bits, 0 at its optimum by construction.

    Args:
        loss: of bits, at least 0.
        random: its exact expectation over uniformly random bits.
    """

    loss: Callable[[Bits], float]
    random: float


def linear(bits: int, rng: np.random.Generator) -> Problem:
    """A weight for each bit that is not the hidden target's: the target costs 0, random bits half of all weights."""
    target_N, weight_N = rng.integers(0, 2, bits), rng.exponential(size=bits)
    return Problem(lambda x_N: float(weight_N @ (x_N != target_N)), weight_N.sum() / 2)


def pairwise(bits: int, rng: np.random.Generator) -> Problem:
    """Two random partners for each bit; a pair costs its weight if its parity is not the hidden target's.

    All pairs are satisfied by the target and by its complement, so the minimum is 0. A tenth of the weight is linear,
    without which single bits would tell nothing at p = 1/2 (and which the complement violates). Random bits break
    each term with chance 1/2.
    """
    target_N = rng.integers(0, 2, bits)
    one_P = np.repeat(np.arange(bits), 2)
    other_P = (one_P + rng.integers(1, bits, len(one_P))) % bits
    parity_P, weight_P = target_N[one_P] ^ target_N[other_P], rng.exponential(size=len(one_P))
    single_N = rng.exponential(size=bits) * 0.2

    def loss(x_N: Bits) -> float:
        return float(weight_P @ ((x_N[one_P] ^ x_N[other_P]) != parity_P) + single_N @ (x_N != target_N))

    return Problem(loss, (weight_P.sum() + single_N.sum()) / 2)


def deceptive(bits: int, rng: np.random.Generator) -> Problem:
    """Concatenated traps of four bits at random places (Deb and Goldberg 1993).

    A block costs 0 if all four are those of the hidden target, else 1 + the number that are: every single bit leads
    away from the target. All blocks are right at the target: 0. Random bits cost 43/16 a block; the deceptive
    attractor, 1 a block, has a regret of 0.372.
    """
    target_N, place_N = rng.integers(0, 2, bits), rng.permutation(bits)

    def loss(x_N: Bits) -> float:
        right_B = (x_N == target_N)[place_N].reshape(-1, 4).sum(axis=1)
        return float(TRAP_LOSS[right_B].sum())

    return Problem(loss, bits / 4 * 43 / 16)


PROBLEMS = {"linear": linear, "pairwise": pairwise, "deceptive": deceptive}
Space = dict[str, optuna.distributions.BaseDistribution]
SAMPLERS: dict[str, Callable[[int, Space], optuna.samplers.BaseSampler]] = {
    "random": lambda seed, space: optuna.samplers.RandomSampler(seed=seed),
    "policy-gradient": lambda seed, space: PolicyGradientSampler(seed=seed, search_space=space),
    "natural": lambda seed, space: PolicyGradientSampler(seed=seed, search_space=space, natural=True),
    "nsga2": lambda seed, space: optuna.samplers.NSGAIISampler(seed=seed),
    "tpe": lambda seed, space: optuna.samplers.TPESampler(seed=seed),
    "gp": lambda seed, space: optuna.samplers.GPSampler(seed=seed),
}


@dataclass(frozen=True)
class Run:
    """One study: its regret, the trials that it got, and milliseconds for each."""

    regret: float
    trials: int
    milliseconds: float


def run(sampler: str, problem: str, bits: int, seed: int, trials: int, seconds: float) -> Run:
    """A seed is both the problem's and the sampler's; samplers see the same problems."""
    made = PROBLEMS[problem](bits, np.random.default_rng(seed))
    names = [f"x{i}" for i in range(bits)]
    space: Space = {name: optuna.distributions.CategoricalDistribution([0, 1]) for name in names}
    study = optuna.create_study(sampler=SAMPLERS[sampler](seed, space))

    def objective(trial: optuna.Trial) -> float:
        return made.loss(np.array([trial.suggest_categorical(name, [0, 1]) for name in names]))

    def stop(study: optuna.Study, _: optuna.trial.FrozenTrial) -> None:
        if time.process_time() - begun > seconds:
            study.stop()

    begun = time.process_time()
    study.optimize(objective, n_trials=trials, callbacks=[stop])
    done = len(study.trials)
    return Run(study.best_value / made.random, done, 1000 * (time.process_time() - begun) / done)


def chosen(text: str, among: dict[str, Any], what: str) -> list[str]:
    """The names in a list with commas, all known."""
    names = text.split(",")
    for name in names:
        if name not in among:
            raise SystemExit(f"error: no {what} {name!r}; there are {', '.join(among)}")
    return names


def report(rows: dict[str, list[Run]], trials: int) -> None:
    """One table; ratios are to random's."""
    print(f"  {'sampler':16s}{'regret':>17s}{'/ random':>10s}{'ms/trial':>10s}{'/ random':>10s}")
    base_regret, base_ms = (
        np.mean([getattr(one, what) for one in rows["random"]]) if "random" in rows else np.nan
        for what in ("regret", "milliseconds")
    )
    for sampler, runs in rows.items():
        regret, sd = mean_sd([one.regret for one in runs])
        ms = mean_sd([one.milliseconds for one in runs])[0]
        fewest = min(one.trials for one in runs)
        cut = f"   out of time after {fewest} trials" if fewest < trials else ""
        print(
            f"  {sampler:16s}{regret:9.3f} ± {sd:5.3f}{regret / base_regret:10.2f}{ms:10.1f}{ms / base_ms:10.2f}{cut}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--bits", default="64,1000")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="the most CPU time of one study")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = chosen(args.samplers, SAMPLERS, "sampler")
    if "gp" in samplers and find_spec("scipy") is None:
        print("gp is left out: it needs scipy")
        samplers.remove("gp")
    table: dict[str, dict[str, list[dict[str, float]]]] = {}
    for bits in map(int, args.bits.split(",")):
        for problem in chosen(args.problems, PROBLEMS, "problem"):
            print(f"{problem}, {bits} bits, {args.trials} trials, {args.seeds} seeds")
            rows = {
                sampler: [run(sampler, problem, bits, seed, args.trials, args.seconds) for seed in range(args.seeds)]
                for sampler in samplers
            }
            report(rows, args.trials)
            table[f"{problem}-{bits}"] = {sampler: [vars(one) for one in runs] for sampler, runs in rows.items()}
    if args.json:
        print(json.dumps(table))


if __name__ == "__main__":
    main()
