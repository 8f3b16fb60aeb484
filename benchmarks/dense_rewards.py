"""PuRL's claim (Gupta et al. 2020): dense rewards reach what a sparse reward reaches, in fewer episodes.

    python benchmarks/dense_rewards.py --model DIR --data FILE [--agent dqn:key=value] [--returns false]
        [--dense purl] [--episodes 200] [--seeds 5] [--budget params=0.5] [--device cpu] [--jobs 1] [--json]
    python benchmarks/dense_rewards.py --toy [--seeds 20] [--json]

For each seed the agent is trained twice from the same weights, with `amc` (paid at the end) and with `purl` (paid at
every step), without sensitivities and without races, so that the reward is all that differs; what falls with progress
falls with episodes. After every batch of episodes the agent's choice without noise is scored on the whole search
split, outside what is counted, and the median of the last three (or --smooth best, the best so far) is taken. Compared
are the episodes after which either reaches what `amc` reaches in the end. Dense rewards score a policy at every step:
the tokens of both are told too.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Setup, agent_of, command, mean_sd, noise_free, parser_of, prepare, spread, train
from stable_baselines3.common.callbacks import BaseCallback

from autoprune.agents.training import Settled, Training
from autoprune.objective import Limits, Objective
from autoprune.space import Levels

SPARSE = "amc"
LAST = 3  # choices that the median is of


@dataclass(frozen=True)
class Run:
    """One training; no setup is the toy."""

    setup: Setup | None
    agent: str
    reward: str
    seed: int
    episodes: int


@dataclass(frozen=True)
class Learned:
    """What it chose after so many episodes and tokens: losses on the whole split."""

    run: Run
    episodes: list[int]
    tokens: list[int]
    losses: list[float]

    def smooth(self, how: str) -> list[float]:
        """Medians of the last three, or the best so far."""
        if how == "best":
            return [float(loss) for loss in np.minimum.accumulate(self.losses)]
        return [float(np.median(self.losses[max(0, i + 1 - LAST) : i + 1])) for i in range(len(self.losses))]


class Paced(Objective):
    """An objective whose progress is in episodes, since tokens are what differs."""

    share = 0.0

    @property
    def progress(self) -> float:
        """Share of the episodes."""
        return self.share


class Enough(Exception):  # noqa: N818 (an end, not an error)
    """All episodes are done."""


class Watch(BaseCallback):
    """Notes the choice before each batch of episodes, and ends training.

    Args:
        training: that it is called by.
        objective: of this training.
        scorer: scores the choice's own episode, outside the objective.
        episodes: at which training ends.
    """

    def __init__(self, training: Training, objective: Paced, scorer: Any, episodes: int) -> None:
        super().__init__()
        self._training, self._objective, self._scorer, self._episodes = training, objective, scorer, episodes
        self.noted: list[tuple[int, int, Levels]] = []

    def _on_rollout_start(self) -> None:
        done = self.model.num_timesteps // len(self._objective.space.units)
        choice = noise_free(self._training.rules, self.model, self._scorer)
        self.noted.append((done, self._objective.spent.tokens, choice))
        self._objective.share = min(1.0, done / self._episodes)
        if done >= self._episodes:
            raise Enough

    def _on_step(self) -> bool:
        return True


def main() -> None:
    args = arguments()
    agent_of(args.agent, reward=args.dense)  # mistakes are found before anything is computed
    setup = None if args.toy else Setup.of(args)
    if setup is not None:
        prepare(setup)
    pairs = [(seed, reward) for seed in range(args.seeds) for reward in (SPARSE, args.dense)]
    found: dict[tuple[int, str], Learned] = {}
    work = [Run(setup, args.agent, reward, seed, args.episodes) for seed, reward in pairs]
    for one in spread(learn, work, args.jobs):
        found[one.run.seed, one.run.reward] = one
        losses = " ".join(f"{loss:.4f}" for loss in one.losses)
        print(f"# seed {one.run.seed} {one.run.reward}, {one.tokens[-1]} tokens: {losses}", file=sys.stderr, flush=True)
    rows = [row_of(found[seed, SPARSE], found[seed, args.dense], args.smooth) for seed in range(args.seeds)]
    summary = summary_of(rows)
    smooth = "the best so far" if args.smooth == "best" else f"median of the last {LAST}"
    print(f"{args.agent}, {args.dense} and amc, {args.episodes} episodes; choice without noise, {smooth}\n")
    report(rows, summary)
    if args.json:
        told = {"agent": args.agent, "dense": args.dense, "smooth": args.smooth, "episodes": args.episodes}
        told["setup"] = setup and setup.told()
        curves = [
            {"seed": seed, "reward": reward, "episodes": one.episodes, "tokens": one.tokens, "losses": one.losses}
            for (seed, reward), one in sorted(found.items())
        ]
        print(json.dumps({**told, "summary": summary, "rows": rows, "curves": curves}))


def learn(run: Run) -> Learned:
    """One training, and its choices scored afterwards."""
    if run.setup is None:
        objective, scorer, losses_of = toy(run.seed)
    else:
        bench = prepare(run.setup)
        objective, scorer, losses_of = bench.objective_of(Paced, Limits()), bench.search, bench.search_losses
    agent = agent_of(run.agent, reward=run.reward, sensitivity_tokens=0)
    watches: list[Watch] = []

    def watched(training: Training) -> None:
        assert hasattr(training, "_race")
        training._race = lambda *_: None  # type: ignore[method-assign] # races score policies, and teach nothing
        watches.append(Watch(training, objective, scorer, run.episodes))
        training.model.learn(total_timesteps=10**12, callback=watches[0])

    with suppress(Enough, Settled), np.errstate(invalid="ignore"):
        train(agent, objective, np.random.default_rng(run.seed), watched)
    episodes, tokens, choices = (list(column) for column in zip(*watches[0].noted, strict=True))
    distinct = list(dict.fromkeys(choices))
    losses = dict(zip(distinct, losses_of(distinct), strict=True))
    return Learned(run, episodes, tokens, [losses[choice] for choice in choices])


def toy(seed: int) -> tuple[Paced, Any, Any]:
    """A problem without a network, another for each seed: objective, scorer and true losses."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from autoprune.testing.toys import ToyScorer, toy_space

    space = toy_space(seed=seed)
    scorer = ToyScorer(space, seed)
    return Paced(space, scorer, Limits()), scorer, lambda policies: [scorer.true_loss(policy) for policy in policies]


def row_of(sparse: Learned, dense: Learned, how: str) -> dict[str, Any]:
    """Where each first reaches what the sparse reward reaches in the end; None where it does not."""
    target = sparse.smooth(how)[-1]
    row: dict[str, Any] = {"seed": sparse.run.seed, "start": sparse.losses[0]}
    for name, learned in (("sparse", sparse), ("dense", dense)):
        smooth = learned.smooth(how)
        at = next((i for i, loss in enumerate(smooth) if loss <= target + 1e-12), None)
        row[f"{name}_end"] = smooth[-1]
        row[f"{name}_episodes"] = None if at is None else learned.episodes[at]
        row[f"{name}_tokens"] = None if at is None else learned.tokens[at]
        row[f"{name}_tokens_per_episode"] = learned.tokens[-1] / learned.episodes[-1]
    # before any episode both have the same weights: a sparse reward that never gets below that shows nothing
    row["learned"] = row["sparse_episodes"] > 0
    row["factor"] = _ratio(row, "episodes")
    row["token_factor"] = _ratio(row, "tokens")
    return row


def _ratio(row: dict[str, Any], what: str) -> float | None:
    return row[f"sparse_{what}"] / row[f"dense_{what}"] if row["learned"] and row[f"dense_{what}"] else None


def summary_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations over all seeds; factors over those where the sparse reward taught anything."""
    learned = [row for row in rows if row["learned"]]
    ahead = sum(row["dense_end"] < row["sparse_end"] for row in rows)
    summary: dict[str, Any] = {"seeds": len(rows), "learned": len(learned), "dense_ends_lower": ahead}
    for key in ("start", "sparse_end", "dense_end", "sparse_tokens_per_episode", "dense_tokens_per_episode"):
        summary[key] = mean_sd([row[key] for row in rows])
    for key in ("factor", "token_factor"):
        known = [row[key] for row in learned if row[key] is not None]
        summary[f"{key}_reached"] = len(known)
        summary[key] = mean_sd(known) if known else None
        summary[f"{key}_median"] = float(np.median([row[key] or 0.0 for row in learned])) if learned else None
    return summary


COLUMNS = (
    ("start", "start", "9.4f"), ("sparse end", "sparse_end", "11.4f"), ("dense end", "dense_end", "11.4f"),
    ("episodes: sparse", "sparse_episodes", "17d"), ("dense", "dense_episodes", "7d"), ("factor", "factor", "8.2f"),
    ("tokens: sparse", "sparse_tokens", "15d"), ("dense", "dense_tokens", "10d"), ("factor", "token_factor", "8.3f"),
)  # fmt: skip


def report(rows: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    """A line for each seed (- where the dense reward does not reach the sparse one's end), and what they sum up to."""
    widths = [int(form.split(".")[0].rstrip("d")) for _, _, form in COLUMNS]
    print("seed" + "".join(f"{name:>{width}s}" for (name, _, _), width in zip(COLUMNS, widths, strict=True)))
    for row in rows:
        cells = ["-" if row[key] is None else f"{row[key]:{form}}" for _, key, form in COLUMNS]
        print(f"{row['seed']:4d}" + "".join(f"{cell:>{width}s}" for cell, width in zip(cells, widths, strict=True)))
    for key in ("start", "sparse_end", "dense_end", "sparse_tokens_per_episode", "dense_tokens_per_episode"):
        print(f"{key.replace('_', ' ')}: {summary[key][0]:.4f} ± {summary[key][1]:.4f}")
    print(f"the dense reward ends lower in {summary['dense_ends_lower']} of {summary['seeds']}")
    print(f"the sparse reward taught something in {summary['learned']} of {summary['seeds']}; of these")
    for key, what in (("factor", "fewer episodes"), ("token_factor", "fewer tokens")):
        reached, median = summary[f"{key}_reached"], summary[f"{key}_median"]
        if not reached:
            print(f"{what}: the dense reward reaches its end in none")
            continue
        mean, sd = summary[key]
        print(f"{what}: {mean:.3f} ± {sd:.3f} times where it is reached ({reached}), median of all {median:.3f}")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--agent", default="dqn", help="with its settings, as dqn:gradient_steps=100;episodes=4")
    parser.add_argument("--returns", choices=("true", "false"), help="false: bootstrapped targets, as PuRL's")
    parser.add_argument("--dense", default="purl", help="the reward that is compared with amc")
    parser.add_argument("--smooth", choices=("median", "best"), default="median")
    parser.add_argument("--episodes", type=int, default=200, help="of each training")
    parser.add_argument("--seeds", type=int, help="5, or 20 of the toy")
    parser.add_argument("--toy", action="store_true", help="tests/toys.py instead of a model: the true loss is known")
    args = parser.parse_args()
    args.seeds = args.seeds or (20 if args.toy else 5)
    if args.returns:
        args.agent += f"{';' if ':' in args.agent else ':'}returns={args.returns}"
    return args


if __name__ == "__main__":
    command(main)
