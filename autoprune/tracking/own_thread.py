"""A thread that does one piece of work after another, and that does not keep the process from ending.

Python's pools wait without end for what their threads are doing when the process ends. A tracker may hang.
"""

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any


class OwnThread:
    """Args:
    name: of the thread.
    patience: seconds that the process waits at its end for what is left to do.

    Attributes:
        abandoned: whether the process does not wait at all.
    """

    def __init__(self, name: str, patience: float) -> None:
        self.abandoned = False
        self._name, self._patience, self._started = name, patience, False
        self._queue: SimpleQueue[tuple[Future[None], Callable[[], None]]] = SimpleQueue()
        self._last: Future[None] | None = None

    def submit(self, work: Callable[..., None], *args: Any) -> Future[None]:
        """Do this after all that was submitted before."""
        self._last = future = Future[None]()
        self._queue.put((future, lambda: work(*args)))
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
            atexit.register(self._end)
        return future

    def _run(self) -> None:
        while True:
            future, work = self._queue.get()
            try:
                work()
            except BaseException as error:  # whoever waits for it is told
                future.set_exception(error)
            else:
                future.set_result(None)

    def _end(self) -> None:
        if self._last is not None and not self.abandoned:
            wait([self._last], self._patience)
