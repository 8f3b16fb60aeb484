"""Callbacks: what a search, a comparison or a fine-tuning tells while it runs.

    class EarlyStopping(autoprune.Callback):
        def on_scores(self, objective):
            if objective.spent.tokens > 100_000:
                objective.stop()

    autoprune.search(callbacks=[EarlyStopping()])

The progress display, the log and the trackers are callbacks, too.
"""

import difflib
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from autoprune import usercode
from autoprune.errors import StopSearch, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from autoprune.objective import Objective
    from autoprune.space import Proposal

__all__ = ["Best", "Callback", "Callbacks", "CallbacksGiven", "StopSearch"]


class Best(NamedTuple):
    """A new best policy of a search.

    Args:
        proposal: the policy, a level or a mask for every unit.
        loss: its mean loss in the search.
        scored: tokens, or images, that this is a mean over.
        tokens: tokens, or images, that the search had spent.
        seconds: seconds that the search had spent.
        run: the run's directory.
    """

    proposal: "Proposal"
    loss: float
    scored: int
    tokens: int
    seconds: float
    run: "Path | None"


class Callback:
    """Methods that are called at the moments of a search. All of them do nothing; override those that you need.

    A method may raise `autoprune.StopSearch`, or call `objective.stop()`. The search then ends after the present batch,
    as soon as it has an answer: the run has a result, which is marked as interrupted, and `autoprune.resume` goes on
    with it. A comparison stops as a whole, and the same call goes on with it. A fine-tuning ends as if its time were
    over. Any other exception is raised as a `UserError` that names the callback; the run can be resumed.

    A resumed search replays its journal, so `on_scores` and `on_best` are called for old scores again.
    `objective.computed` is 0 until there is a new one. In a comparison, several searches may run at the same time in
    several threads. They call one at a time, and `objective.run` says which search calls.
    """

    def on_start(self, config: Any, path: "Path") -> None:
        """A search or a fine-tuning begins, or goes on. In a comparison this is called for every search.

        Args:
            config: the `SearchConfig` of the search, or the `TrainingSettings` of the fine-tuning.
            path: the run's directory.
        """

    def on_stage(self, stage: str, share: float) -> None:
        """A stage before or after the search, or a part of one, is done. Also called while a network is trained.

        Args:
            stage: name of the stage, such as "calibrating".
            share: the share of it that is done, in [0, 1].
        """

    def on_notice(self, text: str) -> None:
        """There is a sentence for the user, such as a problem that does not stop the search."""

    def on_scores(self, objective: "Objective") -> None:
        """A batch of policies was scored.

        Args:
            objective: of the search. Useful are `.spent`, `.limits`, `.progress`, `.history`, `.incumbents`, `.best`,
                `.loss(policy)`, `.space`, `.run` and `.stop()`. A callback that asks it for scores changes the search.
        """

    def on_best(self, answer: Best) -> None:
        """There is a new best policy. It is called after the `on_scores` of the same batch.

        Args:
            answer: the policy, its loss and what was spent. A later best may have a higher loss on more tokens.
        """

    def on_step(self, step: int, measures: Mapping[str, float]) -> None:
        """A step of a fine-tuning was done.

        Args:
            step: number of steps so far, at least 1.
            measures: "loss" of the step's examples before it, "lr", and "gradient_norm" before clipping.
        """

    def on_search_end(self, number: int, total: int, outcome: Mapping[str, Any]) -> None:
        """A search of a comparison has ended, and its results are written.

        Args:
            number: of the search, at least 1.
            total: number of searches.
            outcome: as in `searches` of `league.json`, and `items`, the word for what is counted.
        """

    def on_end(self, result: Any) -> None:
        """The search or the fine-tuning is over, and its results are written.

        Args:
            result: a `SearchResult`, or a `Recovered`. In a comparison this is called for every search.
        """


SILENT = Callback()
"""Is told everything and does nothing."""

CallbacksGiven = Sequence[Callback | Callable[..., Any]] | Callback | Callable[..., Any] | None
"""What a user may give as `callbacks`. A plain function is called with the objective after every batch."""

MOMENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class Callbacks(Callback):
    """Several callbacks as one. They are called in order, and by one thread at a time.

    Args:
        given: the callbacks of a user.
        ours: callbacks of our own, which come first: displays, the log.

    Attributes:
        stopped: whether one of them raised `StopSearch`.

    Raises:
        UserError: something among them is no callback.
    """

    def __init__(self, given: CallbacksGiven = None, ours: Sequence[Callback] = ()) -> None:
        listed = [] if given is None else list(given) if isinstance(given, Sequence) else [given]
        self._all = [*ours, *map(_checked, listed)]
        self._lock, self._failure = threading.RLock(), None
        self.stopped = False

    _failure: UserError | None

    def on_start(self, config: Any, path: "Path") -> None:
        """Forwarded, as all of them."""
        self._tell("on_start", config, path)

    def on_stage(self, stage: str, share: float) -> None:
        """Forwarded."""
        self._tell("on_stage", stage, share)

    def on_notice(self, text: str) -> None:
        """Forwarded. A failure is raised at the next moment: notices come from threads that must not die of it."""
        try:
            self._tell("on_notice", text)
        except UserError as error:
            self._failure = error

    def on_scores(self, objective: "Objective") -> None:
        """Forwarded; the objective is told where one of them raised `StopSearch`, now or earlier."""
        self._tell("on_scores", objective)
        if self.stopped:
            objective.stop()

    def on_best(self, answer: Best) -> None:
        """Forwarded."""
        self._tell("on_best", answer)

    def on_step(self, step: int, measures: Mapping[str, float]) -> None:
        """Forwarded.

        Raises:
            StopSearch: one of them raised it, now or earlier.
        """
        self._tell("on_step", step, measures)
        if self.stopped:
            raise StopSearch

    def on_search_end(self, number: int, total: int, outcome: Mapping[str, Any]) -> None:
        """Forwarded."""
        self._tell("on_search_end", number, total, outcome)

    def on_end(self, result: Any) -> None:
        """Forwarded."""
        self._tell("on_end", result)

    def _tell(self, moment: str, *args: Any) -> None:
        with self._lock:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            for callback in self._all:
                method = getattr(callback, moment)
                try:
                    if type(callback).__module__.startswith("autoprune."):
                        method(*args)
                    else:
                        usercode.call(f"callback {type(callback).__name__},", method, *args)
                except StopSearch:
                    self.stopped = True


class BestTeller:
    """Tells callbacks every new best of a search, once."""

    def __init__(self, callbacks: Callback) -> None:
        self._callbacks, self._known = callbacks, None

    _known: "Proposal | None"

    def look(self, objective: "Objective") -> None:
        """Tell the best of the objective, if it is a new one."""
        if not objective.incumbents or objective.incumbents[-1].proposal == self._known:
            return
        tokens, seconds, self._known = objective.incumbents[-1]
        self._callbacks.on_best(Best(self._known, *objective.loss(self._known), tokens, seconds, objective.run))


class _OfFunction(Callback):
    """A plain function, called with the objective after every batch, as Optuna calls one with the study."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def on_scores(self, objective: "Objective") -> None:
        usercode.call("callback", self._function, objective)


def _checked(one: object) -> Callback:
    """A callback as it is, or a function as one.

    Raises:
        UserError: it is neither, or it has a method whose name is nearly that of a moment.
    """
    if isinstance(one, type):
        raise UserError(f"callbacks has the class {one.__name__}: give an object of it, {one.__name__}().")
    if not isinstance(one, Callback):
        if not callable(one):
            raise UserError(
                f"callbacks has {usercode.shown(one)}: a callback is an autoprune.Callback, or a function that is "
                "called with the objective."
            )
        if _only_begins(one):
            raise UserError(f"the callback {usercode.located(one)} is async or a generator: nothing runs it.")
        return _OfFunction(one)
    for name in MOMENTS:
        if _only_begins(getattr(one, name)):
            raise UserError(f"'{name}' of the callback {type(one).__name__} is async or a generator: nothing runs it.")
    for name in dir(one):
        near = difflib.get_close_matches(name, MOMENTS, n=1, cutoff=0.8)
        if name.startswith("on_") and name not in MOMENTS and near:
            raise UserError(f"the callback {type(one).__name__} has a method '{name}'. Did you mean '{near[0]}'?")
    return one


def _only_begins(function: Callable[..., Any]) -> bool:
    """Whether a call only makes a coroutine or a generator, which does nothing by itself."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(kind(function) for kind in kinds)
