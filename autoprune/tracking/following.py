"""The callback that tells trackers how a search, a comparison or a fine-tuning goes."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autoprune import usercode
from autoprune.callbacks import Best, Callback, Callbacks
from autoprune.config import SearchConfig
from autoprune.files.names import slug
from autoprune.files.writing import own_folder
from autoprune.ports.tracker import TrackedRun, Tracker, load_tracker
from autoprune.tracking.own_thread import OwnThread
from autoprune.tracking.state import State

if TYPE_CHECKING:
    from autoprune.objective import Objective
    from autoprune.space import SearchSpace

Kind = Literal["search", "comparison", "recovery"]
FOLDER = "tracking"
"""Of a run, with the files of its trackers."""
ENDING = 90.0
"""Seconds that a tracker may take to end with a run."""


def tracked(track: str | None, told: Callback, comparison: tuple[Path, SearchConfig] | None = None) -> Callback:
    """The callbacks of a run, and those of its trackers behind them.

    Args:
        track: the setting: names of trackers with commas; None for none.
        told: the callbacks without trackers. They are told what goes wrong with one.
        comparison: directory and common settings of a comparison; None for a single search or a fine-tuning.

    Raises:
        UserError: there is no such tracker, or a package or a login is missing.
    """
    names = [] if track is None else track.split(",")
    if not names:
        return told
    classes = {name: load_tracker(name) for name in names}
    for tracker in classes.values():
        tracker.check()
    return Callbacks(ours=[told, Tracking(classes, told, comparison)])


class Tracking(Callback):
    """Each tracker is told by a thread of its own, so that a slow or lost server delays no search.

    Args:
        trackers: name -> class.
        told: is told of a tracker that fails, once.
        comparison: as in `tracked`.
    """

    def __init__(
        self, trackers: Mapping[str, type[Tracker]], told: Callback, comparison: tuple[Path, SearchConfig] | None
    ) -> None:
        self._trackers, self._told, self._comparison = dict(trackers), told, comparison
        self._threads = {name: OwnThread(f"tracker-{slug(name)}", ENDING) for name in trackers}
        self._left_out: set[str] = set()
        self._problems: deque[str] = deque()
        self._settings: dict[tuple[Path, Kind], Mapping[str, Any]] = {}
        self._open: dict[tuple[str, Path, Kind], tuple[Tracker, State]] = {}
        self._spaces: dict[Path, SearchSpace] = {}
        self._recovering: Path | None = None

    def on_start(self, config: Any, path: Path) -> None:
        """Remember the settings. Trackers begin when there is something to tell: a run that cannot begin has none."""
        if isinstance(config, SearchConfig):
            self._settings[path, "search"] = config.model_dump(exclude={"storage", "track"})
        elif is_dataclass(config) and not isinstance(config, type):
            self._settings[path, "recovery"], self._recovering = asdict(config), path

    def on_scores(self, objective: "Objective") -> None:
        """The best loss so far, and what was spent."""
        run, spent = objective.run, objective.spent
        if run is None or not objective.history:
            return
        self._spaces[run] = objective.space
        tokens, seconds, best = objective.history[-1]
        values = {"best_loss": best, "evaluations": spent.evals, "seconds": seconds, "progress": objective.progress}
        self._log(run, "search", "scores", tokens, {f"search/{name}": value for name, value in values.items()})

    def on_best(self, answer: Best) -> None:
        """The loss of a new best policy, on how much it was measured, and its costs as shares of dense."""
        if answer.run is None:
            return
        values = {"incumbent/loss": answer.loss, "incumbent/scored": float(answer.scored)}
        space = self._spaces.get(answer.run)
        if space is not None:
            dense = {metric: space.cost(space.dense, metric) for metric in space.costs}
            values |= {
                f"incumbent/{slug(metric)}": space.cost(answer.proposal, metric) / whole
                for metric, whole in dense.items()
                if whole
            }
        self._log(answer.run, "search", "best", answer.tokens, values, repr(answer.loss))

    def on_step(self, step: int, measures: Mapping[str, float]) -> None:
        """What a step of a fine-tuning measured."""
        if self._recovering is not None:
            values = {f"recovery/{name}": value for name, value in measures.items()}
            self._log(self._recovering, "recovery", "steps", step, values)

    def on_search_end(self, number: int, total: int, outcome: Mapping[str, Any]) -> None:
        """The result of one search of a comparison, in the order in which searches end."""
        if self._comparison is None:
            return
        path, config = self._comparison
        self._settings[path, "comparison"] = config.model_dump(exclude={"storage", "track", "agent", "seed"})
        agent, named = slug(str(outcome.get("agent"))), ("loss", "tokens", "seconds", "seed")
        values = {f"{agent}/{key}": outcome[key] for key in named if isinstance(outcome.get(key), int | float)}
        self._log(path, "comparison", f"{agent}-s{outcome.get('seed')}", None, values)
        self._finish(path, "comparison")

    def on_end(self, result: Any) -> None:
        """What was measured on the validation split."""
        run: Path = result.path
        if (run, "search") in self._settings and self._recovering is None:
            rows = {row.name: row.record() for row in result.table}
            values = {f"{name}/{key}": one for name, row in rows.items() for key, one in row.items()}
            self._log(run, "search", "end", result.spent.tokens, values)
            self._finish(run, "search")
        elif self._recovering is not None:
            run, self._recovering = self._recovering, None
            values = {f"{name}/{key}": one for name, row in result.rows.items() for key, one in asdict(row).items()}
            steps = 0 if result.training is None else result.training.steps
            self._log(run, "recovery", "end", steps, values)
            self._finish(run, "recovery")

    # -- trackers ------------------------------------------------------------------------------------------------

    def _log(
        self, run: Path, kind: Kind, moment: str, step: int | None, values: Mapping[str, Any], mark: str = ""
    ) -> None:
        """Tell every tracker finite numbers that it does not know.

        Args:
            run: the run's directory.
            kind: of the run.
            moment: whose steps are counted by themselves.
            step: the step; None is one more than the last, once for a moment.
            values: numbers, and whatever else is among them.
            mark: tells numbers of one step apart.
        """
        finite = {
            name: float(one) for name, one in values.items() if isinstance(one, int | float) and math.isfinite(one)
        }
        for name in self._trackers:
            self._submit(name, self._write, name, run, kind, moment, step, finite, mark)
        self._tell()

    def _write(
        self, name: str, run: Path, kind: Kind, moment: str, step: int | None, values: Mapping[str, float], mark: str
    ) -> None:
        tracker, state = self._opened(name, run, kind)
        if step is None:
            step = -1 if moment in state.moments else state.last + 1
        if state.is_new(moment, step, mark):
            tracker.log(state.last, values)  # a new best may have been scored some steps ago

    def _opened(self, name: str, run: Path, kind: Kind) -> tuple[Tracker, State]:
        """A tracker that follows a run, and what it knows."""
        if (name, run, kind) not in self._open:
            folder = run / FOLDER
            own_folder(folder)
            settings = self._settings[run, kind]
            state = State(folder, name, kind, settings)
            tracker = self._trackers[name]()
            group = self._comparison[0].name if self._comparison is not None and kind == "search" else None
            about = TrackedRun(folder, run.absolute().name, kind, group, settings, state.id)
            state.id = tracker.start(about)
            state.save()
            self._open[name, run, kind] = tracker, state
        return self._open[name, run, kind]

    def _finish(self, run: Path, kind: Kind) -> None:
        """Let trackers end with a run, and wait for them."""
        ends = {self._submit(name, self._end, name, run, kind): name for name in self._trackers}
        for late in wait(ends, ENDING).not_done:
            self._left_out.add(ends[late])
            self._threads[ends[late]].abandoned = True
            self._problems.append(f"the tracker '{ends[late]}' did not end within {ENDING:.0f} s and is left out.")
        self._tell()

    def _end(self, name: str, run: Path, kind: Kind) -> None:
        tracker, _ = self._open.pop((name, run, kind))
        tracker.finish()

    def _submit(self, name: str, work: Callable[..., None], *args: Any) -> Future[None]:
        return self._threads[name].submit(self._guarded, name, work, *args)

    def _guarded(self, name: str, work: Callable[..., None], *args: Any) -> None:
        """Work of a tracker's thread. One that fails is left out."""
        if name in self._left_out:
            return
        try:
            work(*args)
        except (Exception, SystemExit) as error:
            self._left_out.add(name)
            own = not self._trackers[name].__module__.startswith("autoprune.")
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")
            reason = usercode.told(error) if own else first
            self._problems.append(f"the tracker '{name}' failed and is left out; the run goes on: {reason}.")

    def _tell(self) -> None:
        """Pass on what went wrong in threads."""
        while self._problems:
            self._told.on_notice(self._problems.popleft())
