"""Shared by the benchmarks, and none itself: arguments, a model made ready, work spread over processes.

Shapes: P policies, S sequences.
"""

import argparse
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar
from unittest import mock

import numpy as np

from autoprune.agents import sb3
from autoprune.agents.training import Training
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.data.text import read_texts
from autoprune.envs.episodes import EpisodeRules, Episodes
from autoprune.errors import UserError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.objective import Limits, Objective
from autoprune.ports.scorer import Scorer
from autoprune.space import Levels, Proposal
from autoprune.study import make_agent
from autoprune.written import parse_budget, parse_override

Work = TypeVar("Work")
Result = TypeVar("Result")
Kind = TypeVar("Kind", bound=Objective)


def command(main: Callable[[], None]) -> None:
    """Run it; a user's mistake is one sentence."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")


def parser_of(description: str, test: bool = False) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes; `test`: it scores a text that no search saw."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", help="none is the embedded model")
    parser.add_argument("--data")
    parser.add_argument("--budget", action="append", metavar="METRIC=BOUND", help="params=0.5")
    parser.add_argument("--space", default="width")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="searches side by side; results do not depend on it")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    if test:
        parser.add_argument("--test", help="the text that no search sees; without it the validation split, if at all")
        parser.add_argument("--test-sequences", type=int, default=128)
    return parser


@dataclass(frozen=True)
class Setup:
    """From what a process makes a model ready by itself; hashable, and small enough to be sent to it.

    Args:
        settings: overrides of the configuration, JSON.
        test: the text that no search sees; None is the validation split.
        test_sequences: of it; 0 is none.
        masks: whether some agent keeps or removes single groups.
    """

    settings: str
    test: str | None = None
    test_sequences: int = 0
    masks: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace, masks: bool = False, **changes: Any) -> "Setup":
        """As the arguments say, but for the changes."""
        budgets = dict(parse_budget(text) for text in args.budget or ["params=0.5"])
        own = {"model": args.model, "data": args.data, "budgets": budgets, "space": args.space, "device": args.device}
        settings = own | dict(parse_override(text) for text in args.set) | changes
        return cls(json.dumps(settings), getattr(args, "test", None), getattr(args, "test_sequences", 0), masks)

    def told(self) -> dict[str, Any]:
        """The same as a record to be kept."""
        return {**json.loads(self.settings), "test": self.test, "test_sequences": self.test_sequences}


@dataclass(frozen=True)
class Bench:
    """A model made ready, its dense references computed, so that no clock runs for them."""

    assembly: Assembly
    search: Evaluator
    test: Evaluator | None

    def objective(self, limits: Limits) -> Objective:
        """A new objective."""
        return self.objective_of(Objective, limits)

    def objective_of(self, kind: type[Kind], limits: Limits) -> Kind:
        """A new objective of a class of the benchmark's own."""
        return kind(self.assembly.space, self.search, limits, statistics=self.assembly.store.statistics)

    def search_losses(self, policies: Sequence[Proposal]) -> list[float]:
        """Losses on the whole search split, outside all limits."""
        losses_PS = self.search.score(policies, range(self.search.n_sequences))
        return [float(loss) for loss in losses_PS.mean(axis=1)]

    def test_losses(self, policy: Proposal) -> tuple[float, float]:
        """KL and cross-entropy on the test text."""
        assert self.test is not None
        kl, ce = self.test.score_each([policy], range(self.test.n_sequences)).mean(axis=(1, 2))
        return float(kl), float(ce)


@cache
def prepare(setup: Setup) -> Bench:
    """Once a process: the level store comes from the cache that all processes share."""
    assembly = assemble(load_config(None, json.loads(setup.settings)), masks=setup.masks)
    search = assembly.evaluator(assembly.splits.search, assembly.config.loss)
    search.score([assembly.space.dense], range(search.n_sequences))
    test = None
    if setup.test_sequences:
        tokens_NT = assembly.splits.validation
        if setup.test is not None:
            tokens_NT = read_texts(setup.test).tokens(assembly.loaded.tokenizer, assembly.config.sequence_length)
        test = assembly.evaluator(tokens_NT[: setup.test_sequences], "kl", "ce")
        test.score([assembly.space.dense], range(test.n_sequences))
    return Bench(assembly, search, test)


def specs(text: str) -> list[str]:
    """`a,b:key=value;key=[[1,2],[3,4]]` at its commas, those within brackets left alone."""
    found, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and not depth:
            found.append("")
        else:
            found[-1] += character
    return found


def agent_of(spec: str, **settings: Any) -> Any:
    """An agent from `name` or `name:key=value;key=value`; `settings` are defaults that these override."""
    name, _, options = spec.partition(":")
    return make_agent(name, settings | dict(parse_override(text) for text in options.split(";") if text))


def spread(function: Callable[[Work], Result], work: Sequence[Work], jobs: int) -> Iterator[Result]:
    """Results as they are finished: in this process for one job, otherwise in fresh ones that share the device."""
    if jobs == 1 or len(work) < 2:
        yield from map(function, work)
        return
    # without a limit every process takes every core for its matrix products, and they wait for each other
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // jobs)))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(work)), context, _end_with_parent)
    try:
        for future in as_completed([pool.submit(function, one) for one in work]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A process that is killed takes those that work for it along."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# -- agents on stable-baselines3 ---------------------------------------------------------------------------------


def train(agent: Any, objective: Objective, rng: np.random.Generator, run: Callable[[Training], None]) -> None:
    """`agent.search`, with `run` in the place of what happens once its training is set up."""

    class Own(Training):
        def run(self) -> None:
            run(self)

    with mock.patch.object(sb3, "Training", Own):
        agent.search(objective, rng)


def noise_free(rules: EpisodeRules, model: Any, scorer: Scorer) -> Levels:
    """What a model chooses without noise, in an episode that costs the search nothing.

    The episode is scored, since with dense rewards an observation holds the running loss.
    """
    objective = Objective(rules.objective.space, scorer, Limits(), statistics=rules.objective.statistics)
    episodes = Episodes(replace(rules, objective=objective))
    episodes.begin(np.random.default_rng(0))
    while episodes.outcome is None:
        action, _ = model.predict(episodes.observe(), deterministic=True)
        episodes.step(action)
    return episodes.outcome.policies[0]


# -- numbers -----------------------------------------------------------------------------------------------------


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of a sample, 0 for one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Mean of `a` minus mean of `b`, and the standard error of that for independent samples."""
    error = sum(mean_sd(values)[1] ** 2 / len(values) for values in (a, b)) ** 0.5
    return float(np.mean(a) - np.mean(b)), error
