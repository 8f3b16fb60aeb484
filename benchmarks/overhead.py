"""What the environment and stable-baselines3 take of a search's wall time, and steps per second without scoring.

    python benchmarks/overhead.py --model DIR --data FILE [--agents ppo,dqn] [--tokens 100000] [--seeds 1]
        [--stub-seconds 5] [--device cpu] [--json]

Overhead is 1 - seconds in the scorer / seconds in `agent.search`, journal included; the target is below 10 %. It is
split into the environment (steps of PruningVecEnv, with races, memory and journal) and the rest, stable-baselines3.
Steps per second, one unit of one episode each, are with losses that are a hash of the policy: of the environment with
random actions, and of whole searches.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
from common import Bench, Setup, agent_of, command, mean_sd, parser_of, prepare, specs
from numpy.typing import NDArray

from autoprune import registry
from autoprune.envs.episodes import Actions, EpisodeRules
from autoprune.envs.pruning import PruningEnv
from autoprune.envs.vectorized import PruningVecEnv
from autoprune.errors import LimitReached
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.ports.scorer import Scorer, ScorerWrapper
from autoprune.space import Levels, Proposal

AGENTS = "ppo,maskable-ppo,dqn,ddpg,sac,td3"
Answer = TypeVar("Answer")
SIDE_BY_SIDE = (1, 8, 32)
STUB_SEQUENCES = range(2)


class Timed(ScorerWrapper):
    """A scorer that knows how long it took."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer)
        self.seconds = 0.0

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """The scorer's."""
        return self._timed(lambda: self.scorer.score(policies, sequences))

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """The scorer's."""
        return self._timed(lambda: self.scorer.dense_losses(sequences))

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64] | None:
        """The scorer's."""
        return self._timed(lambda: self.scorer.slopes(policy, sequences))

    def _timed(self, call: Callable[[], Answer]) -> Answer:
        begun = time.perf_counter()
        answer = call()
        self.seconds += time.perf_counter() - begun
        return answer


class Stub(Scorer):
    """A scorer that answers at once: a hash of the policy, the same for every sequence. It tells of no slopes."""

    def __init__(self, scorer: Scorer) -> None:
        self._like = scorer

    @property
    def n_sequences(self) -> int:
        """As many as the scorer has."""
        return self._like.n_sequences

    @property
    def tokens_per_sequence(self) -> int:
        """As long as the scorer's."""
        return self._like.tokens_per_sequence

    def score(self, policies: Sequence[Levels], sequences: Sequence[int]) -> NDArray[np.float64]:
        """From 1 to 2."""
        weights_U = 7919 * np.arange(1, len(policies[0]) + 1) ** 2
        hashed_P = 1 + (np.array(policies) @ weights_U % 10_007) / 10_007
        return np.asarray(np.repeat(hashed_P[:, None], len(sequences), axis=1))


@dataclass
class Steps:
    """What went through `PruningVecEnv.step_wait`: steps of single episodes, its seconds, and the scorer's in it."""

    count: int = 0
    seconds: float = 0.0
    scoring: float = 0.0


@contextmanager
def counted(scorer: Timed) -> Iterator[Steps]:
    """Count what happens in here."""
    steps, step_wait = Steps(), PruningVecEnv.step_wait

    def counting(env: PruningVecEnv) -> Any:
        begun, before = time.perf_counter(), scorer.seconds
        try:
            return step_wait(env)
        finally:
            steps.count += env.num_envs
            steps.seconds += time.perf_counter() - begun
            steps.scoring += scorer.seconds - before

    with mock.patch.object(PruningVecEnv, "step_wait", counting):
        yield steps


def main() -> None:
    args = arguments()
    agents = specs(args.agents)
    for agent in agents:
        agent_of(agent)  # mistakes are found before anything is computed
    bench = prepare(Setup.of(args))
    print(f"{len(bench.assembly.space.units)} units, {args.tokens} tokens, {args.seeds} seeds, {args.device}\n")
    heads = f"{'seconds':>8s} {'scoring':>8s} {'overhead':>17s} {'environment':>12s} {'SB3':>7s} {'tokens':>8s}"
    print(f"{'agent':24s} {heads}")
    searches: dict[str, dict[str, Any]] = {}
    for agent in agents:
        runs = [shares(bench, agent, seed, args.tokens) for seed in range(args.seeds)]
        row = searches[agent] = {key: mean_sd([run[key] for run in runs]) for key in runs[0]}
        print(
            f"{agent:24s} {row['seconds'][0]:8.2f} {row['scoring'][0]:8.2f} {row['overhead'][0]:8.1%} ± "
            f"{row['overhead'][1]:6.1%} {row['environment'][0]:12.1%} {row['sb3'][0]:7.1%} {row['tokens'][0]:8.0f}",
            flush=True,
        )
    print(f"\n{'steps per second, scoring stubbed out':44s} {'steps/s':>10s}")
    speeds: dict[str, float] = {}
    for name, measure in speed_measures(bench, agents, args.stub_seconds).items():
        speeds[name] = measure()
        print(f"{name:44s} {speeds[name]:10,.0f}", flush=True)
    if args.json:
        told = {"device": args.device, "units": len(bench.assembly.space.units), "tokens": args.tokens}
        print(json.dumps({**told, "searches": searches, "steps_per_second": speeds}))


def shares(bench: Bench, agent: str, seed: int, tokens: int) -> dict[str, float]:
    """One search, its journal written as a run's: seconds, and what they went to."""
    scorer, space, statistics = Timed(bench.search), bench.assembly.space, bench.assembly.store.statistics
    with tempfile.TemporaryDirectory() as folder, counted(scorer) as steps:
        journal = Journal(Path(folder) / "journal.jsonl")
        objective = Objective(space, scorer, Limits(tokens=tokens), journal, statistics=statistics)
        begun = time.perf_counter()
        with suppress(LimitReached), np.errstate(invalid="ignore"):
            agent_of(agent).search(objective, np.random.default_rng(seed))
        seconds = time.perf_counter() - begun
        journal.close()
    environment = (steps.seconds - steps.scoring) / seconds
    overhead = 1 - scorer.seconds / seconds
    return {
        "seconds": seconds, "scoring": scorer.seconds, "overhead": overhead, "environment": environment,
        "sb3": overhead - environment, "tokens": objective.spent.tokens, "steps": steps.count,
    }  # fmt: skip


def speed_measures(bench: Bench, agents: Sequence[str], seconds: float) -> dict[str, Callable[[], float]]:
    """Name -> what measures it."""
    measures: dict[str, Callable[[], float]] = {}
    kinds: tuple[Actions, ...] = ("discrete", "continuous")
    for kind in kinds:
        measures[f"PruningEnv, {kind}"] = partial(single_speed, bench, kind, seconds)
        for n in SIDE_BY_SIDE:
            measures[f"PruningVecEnv, {kind}, {n} episodes"] = partial(many_speed, bench, kind, n, seconds)
    measures["PruningVecEnv, discrete, 8 episodes, purl"] = partial(many_speed, bench, "discrete", 8, seconds, "purl")
    return measures | {f"search with {agent}": partial(search_speed, bench, agent, seconds) for agent in agents}


def stubbed(bench: Bench, limits: Limits) -> Objective:
    """An objective whose scores cost nothing."""
    return Objective(bench.assembly.space, Stub(bench.search), limits, statistics=bench.assembly.store.statistics)


def rules_of(bench: Bench, actions: Actions, reward: str) -> EpisodeRules:
    """An episode as the agents have it, but for sensitivities."""
    space = bench.assembly.space
    loaded = registry.load("rewards", reward)
    return EpisodeRules(stubbed(bench, Limits()), loaded, actions, lambda _: STUB_SEQUENCES, None, space.uniform())


def single_speed(bench: Bench, actions: Actions, seconds: float) -> float:
    """Of the Gymnasium environment with random actions."""
    env = PruningEnv(rules_of(bench, actions, "amc"))
    env.action_space.seed(0)
    env.reset(seed=0)
    steps, begun = 0, time.perf_counter()
    while time.perf_counter() < begun + seconds:
        _, _, terminated, _, _ = env.step(env.action_space.sample())
        steps += 1
        if terminated:
            env.reset()
    return steps / (time.perf_counter() - begun)


def many_speed(bench: Bench, actions: Actions, n: int, seconds: float, reward: str = "amc") -> float:
    """Of the vectorised environment with random actions, steps of single episodes."""
    rng = np.random.default_rng(0)
    env = PruningVecEnv(rules_of(bench, actions, reward), n, rng)
    levels = int(bench.assembly.space.n_levels_U.max())
    env.reset()
    steps, begun = 0, time.perf_counter()
    while time.perf_counter() < begun + seconds:
        env.step(rng.integers(levels, size=n) if actions == "discrete" else rng.uniform(-1, 1, (n, 1)))
        steps += n
    return steps / (time.perf_counter() - begun)


def search_speed(bench: Bench, agent: str, seconds: float) -> float:
    """Of a whole search: training, races and all."""
    objective = stubbed(bench, Limits(seconds=seconds))
    begun = time.perf_counter()
    with counted(Timed(Stub(bench.search))) as steps, suppress(LimitReached):
        agent_of(agent).search(objective, np.random.default_rng(0))
    return steps.count / (time.perf_counter() - begun)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--agents", default=AGENTS)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--stub-seconds", type=float, default=5.0, help="that each speed is measured for")
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
