"""The pool of workers: scores policies on Ray.

One thread owns the workers and their state. Searches, which may share a pool, give it batches and wait. Losses come
back in the order of the batch. They equal those of a single process, because a policy's loss does not depend on the
others.

Shapes: P policies, S sequences.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from autoprune.assembly import Assembly
from autoprune.config import SearchConfig
from autoprune.ports.candidate_training import CandidateTraining
from autoprune.ports.scorer import POLICIES_AT_ONCE, Scorer
from autoprune.space import Levels, Proposal
from autoprune.workers.bundle import FileBundle, write_bundle
from autoprune.workers.cluster import Cluster
from autoprune.workers.schedule import Costs, Job, plan
from autoprune.workers.supervisor import Supervisor, Work
from autoprune.workers.training_here import TrainsHere

if TYPE_CHECKING:
    from autoprune.evaluation.evaluator import Evaluator

Notice = Callable[[str], None]
CLOSING_SECONDS = 20.0
LOOK_SECONDS = 5.0  # between two looks at whether the thread that answers is there


def is_wanted(config: SearchConfig) -> bool:
    """Whether a search is scored on Ray. One worker without a cluster is this process."""
    return config.ray_address is not None or (config.workers or 1) > 1


class WorkerPool:
    """Workers for the duration of `with WorkerPool(...)`. They start while the search is prepared.

    Args:
        config: workers, address, device.
        notice: called with sentences for the user.
    """

    def __init__(self, config: SearchConfig, notice: Notice = lambda text: None) -> None:
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._opened: Future[Cluster] = Future()
        self._numbers = itertools.count()
        self._batches: dict[int, _Batch] = {}
        self._config, self._notice = config, notice
        self._thread = threading.Thread(target=self._live, name="autoprune-workers", daemon=True)
        self._thread.start()

    def __enter__(self) -> "WorkerPool":
        """Wait for Ray, which starts faster while nothing else runs.

        Raises:
            UserError: Ray does not start, or the cluster cannot be joined or has no room.
        """
        self._opened.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.put(None)
        self._thread.join(CLOSING_SECONDS)

    @property
    def workers(self) -> int:
        """The number of workers, including those that are being replaced."""
        return self._opened.result().workers

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are ready, on any machine."""
        self._opened.result()
        return [worker.pid for worker in self._supervisor.workers if worker.ready]

    @property
    def died(self) -> int:
        """The number of workers that have died."""
        self._opened.result()
        return self._supervisor.died

    def scorer(self, assembly: Assembly) -> "PoolScorer":
        """A scorer for the search split of an assembly, with the configured loss.

        Raises:
            UserError: the bundle could not be written.
        """
        workers = self.workers
        bundle, scorer = write_bundle(assembly, _node(), workers), PoolScorer(self, assembly, workers)
        self._events.put(partial(self._distribute, bundle, scorer.costs.dense))
        return scorer

    def run(
        self, costs: Costs, proposals: Sequence[Proposal], sequences: Sequence[int], chunk: int
    ) -> "tuple[NDArray[np.float64], dict[Proposal, str]]":
        """Losses `[P, S]`, which are infinite for policies that could not be scored, and the reasons for these."""
        batch = _Batch(next(self._numbers), proposals, sequences)
        finish = partial(self._finish, batch)
        work = [batch.work(job, finish) for job in plan(costs, proposals, len(sequences), self.workers, chunk)]
        self._events.put(partial(self._take, batch, work))
        try:
            while not batch.done.wait(LOOK_SECONDS):
                if not self._thread.is_alive():
                    raise RuntimeError("the pool's thread has ended, and nobody answers")
        except BaseException:  # Ctrl-C
            self._events.put(partial(self._drop, batch))
            raise
        if batch.error is not None:
            raise batch.error
        return batch.losses_PS, batch.failures

    # -- in the pool's thread ------------------------------------------------------------------------------------

    def _live(self) -> None:
        """Ray is started here: its processes end with the thread that started them."""
        try:
            cluster = Cluster(self._config)
        except BaseException as error:
            self._opened.set_exception(error)
            return
        try:
            self._supervisor = Supervisor(cluster, self._events.put, self._notice)
        except BaseException as error:
            cluster.close()
            self._opened.set_exception(error)
            return
        self._opened.set_result(cluster)
        try:
            while self._step():
                pass
            self._supervisor.stop()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            cluster.close()

    def _step(self) -> bool:
        """One event, or a look at what has taken too long; False at the end."""
        supervisor = self._supervisor
        try:
            event = self._events.get(timeout=supervisor.patience())
            if event is None:
                return False
            event()
        except queue.Empty:
            supervisor.look()
        supervisor.assign()
        if supervisor.broken is not None:
            self._fail(supervisor.broken)
        return True

    def _distribute(self, bundle: FileBundle, dense: float) -> None:
        self._supervisor.distribute(bundle, dense)

    def _take(self, batch: "_Batch", work: list[Work]) -> None:
        self._batches[batch.number] = batch
        self._supervisor.queue += work

    def _drop(self, batch: "_Batch") -> None:
        self._batches.pop(batch.number, None)
        self._supervisor.queue = [work for work in self._supervisor.queue if work.order != batch.number]

    def _fail(self, error: BaseException) -> None:
        for batch in self._batches.values():
            batch.error = error
            batch.done.set()
        self._batches.clear()
        self._supervisor.queue.clear()

    def _finish(self, batch: "_Batch", work: Work, losses_PS: Any, reason: str | None) -> None:
        batch.fill(work, losses_PS, reason)
        if batch.done.is_set():
            self._batches.pop(batch.number, None)
        if reason is not None:
            self._notice(f"a policy failed, and the search goes on: {reason}.")


class PoolScorer(Scorer):
    """Scores on a pool, like an evaluator in this process.

    Attributes:
        costs: of policies.
    """

    def __init__(self, pool: WorkerPool, assembly: Assembly, workers: int) -> None:
        config = assembly.config
        self._workers, self._failures = workers, dict[Proposal, str]()
        model: Any = assembly.loaded.model
        head = model.get_output_embeddings().weight.numel()
        self._pool, self._dense = pool, assembly.space.dense
        self._assembly, self._here = assembly, cast("Evaluator | None", None)
        self.costs = Costs(assembly.space, head)
        self._chunk, self._zero_at_dense = (
            config.batch_size(),
            assembly.task.loss(config.loss).zero_at_dense,
        )

    @property
    def n_sequences(self) -> int:
        """Sequences in the search split."""
        return len(self._assembly.splits.search)

    @property
    def tokens_per_sequence(self) -> int:
        """Their length."""
        return self._assembly.splits.search.shape[1]

    @property
    def policies_at_once(self) -> int:
        """Number of policies that keeps all workers busy."""
        return POLICIES_AT_ONCE * self._workers

    @property
    def failures(self) -> dict[Proposal, str]:
        """Policies that could not be scored, and why not."""
        return self._failures

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """Losses, `[P, S]`, nats per token; infinite for a policy that cannot be scored."""
        losses_PS, failures = self._pool.run(self.costs, policies, sequences, self._chunk)
        self._failures |= failures
        return losses_PS

    @property
    def slope_passes(self) -> int:
        """Forward passes that the slopes of a sequence take."""
        from autoprune.evaluation.slopes import PASSES

        return PASSES

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64] | None:
        """Slopes of all units at a policy, `[U, L]` or None. They are few and are computed in this process."""
        with self._assembly.network:
            return self._evaluator().slopes(policy, sequences)

    def with_training(self, how: CandidateTraining, tick: Callable[[], None]) -> Scorer:
        """This scorer, which trains in this process as `how` says."""
        return TrainsHere(self, self._evaluator().with_training(how, tick), self._assembly.network)

    def _evaluator(self) -> "Evaluator":
        """The evaluator in this process."""
        if self._here is None:
            self._here = self._assembly.evaluator(self._assembly.splits.search, self._assembly.config.loss)
        return self._here

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """The loss of the dense network, `[S]`."""
        if self._zero_at_dense:
            return np.zeros(len(sequences))
        return np.asarray(self.score([self._dense], sequences)[0])


class _Batch:
    """What one call asked for, filled in as answers arrive."""

    def __init__(self, number: int, proposals: Sequence[Proposal], sequences: Sequence[int]) -> None:
        self.number, self.proposals, self.sequences = number, list(proposals), list(sequences)
        self.losses_PS = np.full((len(self.proposals), len(self.sequences)), np.nan)
        self.failures: dict[Proposal, str] = {}
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._left = self.losses_PS.size

    def work(self, job: Job, finish: Callable[[Work, Any, str | None], None]) -> Work:
        """What a worker is told of a job."""
        proposals = [self.proposals[p] for p in job.policies]
        return Work(proposals, [self.sequences[s] for s in job.sequences], job, finish, self.number)

    def fill(self, work: Work, losses_PS: Any, reason: str | None) -> None:
        """Losses of a job, or why there are none."""
        if reason is not None:
            self.failures |= dict.fromkeys(work.proposals, reason)
        cells = np.ix_(work.job.policies, work.job.sequences)
        self.losses_PS[cells] = np.inf if reason is not None else losses_PS
        self._left -= self.losses_PS[cells].size
        if not self._left:
            self.done.set()


def _node() -> str:
    """This machine, as Ray calls it; a driver that is no part of the cluster (ray://) is a machine of its own."""
    import ray

    untyped: Any = ray
    if untyped.util.client.ray.is_connected():
        return "driver"
    return str(ray.get_runtime_context().get_node_id())
