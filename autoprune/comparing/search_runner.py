"""Runs the searches of a comparison on one assembly: one after another in this process, or in parallel on a pool.

Parallel searches are threads, which mostly wait for the pool. Their results do not depend on each other: each search
has its own random numbers, and a pool's losses do not depend on what else it scores. Agents that seed generators of the
whole process (`alone`) run one at a time.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path

from autoprune import stopping
from autoprune.assembly import Assembly
from autoprune.callbacks import Callback, Callbacks
from autoprune.comparing.curves import Point, thinned
from autoprune.comparing.results import CURVE
from autoprune.config import SearchConfig, load_config
from autoprune.errors import StopSearch, UserError
from autoprune.files.writing import write_atomically
from autoprune.objective import Objective
from autoprune.policy import to_json
from autoprune.ports.agent import load_agent
from autoprune.result import SearchResult
from autoprune.study import scorer_of, search_on
from autoprune.workers.pool import WorkerPool

POINTS = 8  # of a curve, at most
CURVE_SEQUENCES = 16  # of the validation split, on which incumbents are scored again


class SearchRunner:
    """Args:
    assembly: of what is common to all searches.
    pool: that scores; None is this process.
    out: the comparison's directory.
    callbacks: are told how it goes.
    """

    def __init__(self, assembly: Assembly, pool: WorkerPool | None, out: Path, callbacks: Callback) -> None:
        self._assembly, self._pool, self._out, self._callbacks = assembly, pool, out, callbacks
        tokens_NT = assembly.splits.validation[:CURVE_SEQUENCES]
        self._curve_scorer = assembly.evaluator(tokens_NT, assembly.config.loss)
        self._pool_scorer = pool.scorer(assembly) if pool else None
        self._network, self._alone, self._stopped = assembly.network, threading.Lock(), threading.Event()

    def run(self, searches: Mapping[str, SearchConfig]) -> Iterator[tuple[str, UserError | None]]:
        """Each search as it ends: the name of its run, and why it has no answer, if so."""
        if self._pool is None or len(searches) == 1:
            yield from ((name, self._attempt(name, config)) for name, config in searches.items())
            return
        with ThreadPoolExecutor(min(len(searches), 2 * self._pool.workers)) as threads:
            futures = {threads.submit(self._attempt, name, config): name for name, config in searches.items()}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:  # Ctrl-C: what runs is told, what waits is not begun
                self._stopped.set()
                threads.shutdown(wait=True, cancel_futures=True)

    def _attempt(self, name: str, config: SearchConfig) -> UserError | None:
        try:
            with self._alone if load_agent(config.agent).alone else nullcontext():
                self._search(config, self._out / name)
        except UserError as error:
            return error
        return None

    def _search(self, config: SearchConfig, run: Path) -> None:
        """One search, begun or gone on with, and its curve, which is written last."""
        if (run / "config.yaml").exists() and not load_config(run / "config.yaml").goes_on_as(config):
            raise UserError(
                f"'{run}' was searched with other settings than the comparison's: remove it to search again."
            )
        scorer = self._pool_scorer or scorer_of(self._assembly, None)
        ends = _Ends(self._stopped, self._out)
        callbacks = Callbacks(ours=[ends, self._callbacks])
        result = search_on(self._assembly, scorer, config, run, callbacks, self._network)
        if result.interrupted:
            raise StopSearch if ends.by_callback else KeyboardInterrupt
        with self._network:
            self._callbacks.on_stage("scoring the curve", 0.0)
            points = self._curve(result)
        write_atomically(run / CURVE, to_json(points) + "\n")

    def _curve(self, result: SearchResult) -> list[Point]:
        """A search's incumbents on the common sample, outside its limits and clock; the last is where it ended."""
        scorer, chosen = self._curve_scorer, thinned(result.incumbents, POINTS)
        distinct = list(dict.fromkeys(one.proposal for one in chosen))
        losses_P = scorer.score(distinct, range(scorer.n_sequences)).mean(axis=1)
        losses = dict(zip(distinct, losses_P.tolist(), strict=True))
        points = [(one.tokens, one.seconds, losses[one.proposal]) for one in chosen]
        end = (result.spent.tokens, result.spent.seconds, points[-1][2])
        return points if end[0] == points[-1][0] else [*points, end]


class _Ends(Callback):
    """Ends a search of a comparison that was stopped, and knows whether a callback ended it."""

    def __init__(self, stopped: threading.Event, comparison: Path) -> None:
        self._stopped, self._comparison, self._objective = stopped, comparison, None

    _objective: Objective | None

    def on_scores(self, objective: Objective) -> None:
        self._objective = objective
        if self._stopped.is_set():
            raise KeyboardInterrupt
        if stopping.heard(self._comparison):
            objective.stop()

    @property
    def by_callback(self) -> bool:
        return self._objective is not None and self._objective.stopped
