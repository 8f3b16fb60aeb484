"""Starts workers, gives them work, and replaces those that die or hang.

Everything here runs in the pool's thread, where Ray's answers arrive as events.

When a worker dies, its job is scored again, each policy in a job of its own. So a policy that kills its worker is
identified. A policy has failed if two workers died while they scored it alone and the second one was seen alive just
before. A worker that does not answer for much longer than its job should take counts as dead.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from autoprune.errors import UserError
from autoprune.space import Proposal
from autoprune.workers.bundle import FileBundle, Part, parts_of
from autoprune.workers.cluster import Cluster
from autoprune.workers.schedule import Job
from autoprune.workers.worker import Worker

TRIES = 3  # deaths in a row, with nothing scored between them, after which a worker is not replaced
START_SECONDS = 600.0  # for a worker to be placed, to load torch and the network
LATE_SECONDS = 60.0  # without having started, which is worth a word
LEAST_SECONDS, PATIENCE = 30.0, 20.0  # a job has hung after so long, and so many times what it should have taken
SLOW = 3.0  # times what a job should have taken, after which an idle worker does it too


@dataclass
class Work:
    """A job of a batch and its state.

    Args:
        proposals: its policies.
        sequences: numbers of its sequences in the split.
        job: the positions of both in the batch.
        finish: called once, with losses `[P, S]` or with the reason for their absence.
        order: number of the batch. Earlier batches go first.
    """

    proposals: list[Proposal]
    sequences: list[int]
    job: Job
    finish: Callable[["Work", Any, str | None], None]
    order: int
    finished: bool = False
    copies: int = 0
    deaths: int = 0

    def split(self) -> list["Work"]:
        """Each policy by itself."""
        share = self.job.cost / len(self.proposals)
        return [
            Work([proposal], self.sequences, Job((p,), self.job.sequences, share), self.finish, self.order)
            for proposal, p in zip(self.proposals, self.job.policies, strict=True)
        ]


@dataclass
class WorkerState:
    """The state of one worker."""

    number: int
    actor: Any = None
    pid: int = 0
    ready: bool = False
    work: Work | None = None
    proven: bool = False  # whether it was seen alive just before it was given its work
    begun: float = 0.0
    limit: float = 0.0
    deaths: int = 0
    known: set[int] = field(default_factory=set)  # sequences whose dense references it has


class Supervisor:
    """Args:
    cluster: where workers are placed.
    post: takes an event for the pool's thread.
    notice: called with sentences for the user.

    Attributes:
        workers: the states of all workers.
        queue: jobs that no worker has yet.
        broken: why nothing can be scored any more; None while scoring is possible.
        died: the number of workers that have died.
    """

    def __init__(
        self, cluster: Cluster, post: Callable[[Callable[[], None]], None], notice: Callable[[str], None]
    ) -> None:
        self._cluster, self._post, self._notice = cluster, post, notice
        self.workers = [WorkerState(number + 1) for number in range(cluster.workers)]
        self.queue: list[Work] = []
        self.broken: BaseException | None = None
        self.died = 0
        self._told_late = False
        self._bundle: FileBundle | None = None
        self._parts: list[Part] | None = None
        self._rate, self._dense = 0.0, 1.0  # seconds for a unit of cost; cost of a dense pass
        self._place_more()

    # -- life ----------------------------------------------------------------------------------------------------

    def distribute(self, bundle: FileBundle, dense: float) -> None:
        """Have all workers load a bundle. `dense` is the cost of the dense network on one sequence."""
        if bundle == self._bundle:
            return
        self._bundle, self._parts, self._dense, self._rate = bundle, None, dense, 0.0
        for worker in self.workers:
            if worker.actor is not None:
                self._load(worker)

    def stop(self) -> None:
        """Stop all workers."""
        import ray

        for worker in self.workers:
            if worker.actor is not None:
                ray.kill(worker.actor)

    def _place_more(self) -> None:
        """Begin with as many as may start at a time: on few processors one is ready much sooner than all together."""
        starting = sum(worker.actor is not None and not worker.ready for worker in self.workers)
        waiting = [worker for worker in self.workers if worker.actor is None and not worker.deaths]
        for worker in waiting[: max(0, self._cluster.starts - starting)]:
            self._place(worker)

    def _place(self, worker: WorkerState) -> None:
        import ray

        remote: Any = ray.remote(**self._cluster.options)(Worker)
        worker.actor, worker.ready, worker.known = remote.remote(self._cluster.threads), False, set()
        worker.begun, worker.limit = time.monotonic(), START_SECONDS
        if self._bundle is not None:
            self._load(worker)

    def _load(self, worker: WorkerState, parts: list[Part] | None = None) -> None:
        worker.begun, worker.limit = time.monotonic(), START_SECONDS
        self._await(worker, worker.actor.load.remote(self._bundle, parts), self._loaded)

    def _loaded(self, worker: WorkerState, answer: tuple[int, float] | None) -> None:
        if answer is not None:
            worker.pid, seconds = answer
            worker.ready, self._rate = True, self._rate or seconds / self._dense
            self._place_more()
            return
        if self._parts is None:
            assert self._bundle is not None
            self._parts = parts_of(self._bundle)
        self._load(worker, self._parts)

    def _await(self, worker: WorkerState, reference: Any, then: Callable[[WorkerState, Any], None]) -> None:
        """Have `then` called in the pool's thread with the answer, unless the worker has been replaced by then."""
        actor = worker.actor

        def arrived(future: Any) -> None:
            self._post(partial(self._answered, worker, actor, future, then))

        reference.future().add_done_callback(arrived)

    def _answered(self, worker: WorkerState, actor: Any, future: Any, then: Callable[[WorkerState, Any], None]) -> None:
        if worker.actor is not actor:
            return
        error = future.exception()
        if error is None:
            then(worker, future.result())
        elif (raised := _raised(error)) is not None:
            self.broken = raised
        else:
            self._replace(worker, _reason(error))

    def _replace(self, worker: WorkerState, reason: str) -> None:
        """A worker has died, or counts as dead: replace it, and put what it did back."""
        import ray

        ray.kill(worker.actor)
        work, worker.work, worker.actor, worker.ready = worker.work, None, None, False
        worker.deaths += 1
        self.died += 1
        if self.died == 1:
            left = sum(other.ready for other in self.workers)
            self._notice(f"worker {worker.number} {reason}: it is replaced, {left} work on, and nothing is lost.")
        if work is not None:
            self._put_back(work, reason, worker.proven)
        if worker.deaths < TRIES:
            self._place(worker)
            return
        self._notice(f"worker {worker.number} {reason} {TRIES} times without scoring anything: it is not replaced.")
        self._place_more()
        if all(other.actor is None for other in self.workers):
            self.broken = UserError(
                f"no worker is left: the last one {reason}. What was scored is kept: `autoprune resume` goes on, "
                "with fewer --workers where memory is short."
            )

    def _put_back(self, work: Work, reason: str, proven: bool) -> None:
        work.copies -= 1
        if work.finished or work.copies:
            return
        if len(work.proposals) > 1:
            work.finished = True
            self.queue[:0] = work.split()
            return
        if not work.deaths or not proven:
            work.deaths = 1
            self.queue.insert(0, work)
            return
        work.finished = True
        work.finish(work, None, f"the worker that scored it {reason}, twice")

    # -- work ----------------------------------------------------------------------------------------------------

    def assign(self) -> None:
        """Give idle workers something to do."""
        for worker in self.workers:
            if worker.ready and worker.work is None:
                work = self._next(worker) or self._straggling()
                if work is not None:
                    self._send(worker, work)

    def patience(self) -> float | None:
        """Seconds until `look` must be called without an answer; None is never."""
        now = time.monotonic()
        ends = [worker.begun + worker.limit for worker in self.workers if self._expected(worker)]
        if not self._told_late:
            ends += [
                worker.begun + LATE_SECONDS for worker in self.workers if self._expected(worker) and not worker.ready
            ]
        if any(worker.ready and worker.work is None for worker in self.workers):
            alone = [
                worker
                for worker in self.workers
                if worker.work and worker.work.copies == 1 and not worker.work.finished
            ]
            ends += [worker.begun + self._slow(worker.work) for worker in alone if worker.work]
        return max(0.01, min(ends) - now) if ends else None

    def look(self) -> None:
        """Replace workers that hang."""
        now = time.monotonic()
        late = [
            worker
            for worker in self.workers
            if self._expected(worker) and not worker.ready and now > worker.begun + LATE_SECONDS
        ]
        if late and not self._told_late:
            self._told_late = True
            self._notice(f"{len(late)} of {len(self.workers)} workers have not started yet: is there room for them?")
        for worker in self.workers:
            if self._expected(worker) and now > worker.begun + worker.limit:
                self._replace(worker, f"did not answer for {worker.limit:.0f} s")

    def _expected(self, worker: WorkerState) -> bool:
        """Whether an answer is: it works, or loads what there is to load."""
        return worker.actor is not None and (worker.work is not None or (not worker.ready and self._bundle is not None))

    def _next(self, worker: WorkerState) -> Work | None:
        """Of the earliest batch, what needs fewest dense references that the worker lacks; of these, the longest."""
        self.queue = [work for work in self.queue if not work.finished]
        if not self.queue:
            return None
        chosen = min(self.queue, key=lambda w: (w.order, len(set(w.sequences) - worker.known), -w.job.cost))
        self.queue.remove(chosen)
        return chosen

    def _straggling(self) -> Work | None:
        """Work that takes its worker much longer than it should: the first answer counts."""
        now = time.monotonic()
        for worker in self.workers:
            work = worker.work
            if work and work.copies == 1 and not work.finished and now > worker.begun + self._slow(work):
                return work
        return None

    def _slow(self, work: Work) -> float:
        return max(1.0, SLOW * work.job.cost * self._rate)

    def _send(self, worker: WorkerState, work: Work) -> None:
        worker.work, worker.begun = work, time.monotonic()
        worker.limit = max(LEAST_SECONDS, PATIENCE * work.job.cost * self._rate)
        work.copies += 1
        worker.proven = False
        if work.deaths:
            self._await(worker, worker.actor.ping.remote(), self._give)
        else:
            self._give(worker)

    def _give(self, worker: WorkerState, answer: None = None) -> None:
        """Have it scored; after an answer to a ping, by a worker that is alive."""
        work, worker.proven = worker.work, bool(worker.work and worker.work.deaths)
        assert work is not None
        self._await(worker, worker.actor.score.remote(work.proposals, work.sequences), self._scored)

    def _scored(self, worker: WorkerState, answer: tuple[Any, float]) -> None:
        losses_PS, seconds = answer
        work, worker.work, worker.deaths = worker.work, None, 0
        assert work is not None
        work.copies -= 1
        worker.known.update(work.sequences)
        self._rate = 0.8 * self._rate + 0.2 * seconds / work.job.cost
        if not work.finished:
            work.finished = True
            work.finish(work, losses_PS, None)


def _raised(error: BaseException) -> BaseException | None:
    """The exception that the worker's own code raised, if it was not the worker that died."""
    import ray

    if not isinstance(error, ray.exceptions.RayTaskError):
        return None
    cause = error.cause
    return cause if isinstance(cause, BaseException) else error


def _reason(error: BaseException) -> str:
    """What happened to a worker, as the end of a sentence about it."""
    told = str(error)
    if "OutOfMemory" in type(error).__name__ or ("memory" in told.lower() and "threshold" in told):
        return "ran out of memory"
    return "left with its machine" if "node has died" in told or "NodeDied" in type(error).__name__ else "died"
