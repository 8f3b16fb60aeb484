"""Shows the progress of a command on stderr: a live bar on a terminal, plain lines elsewhere.

It imports neither torch nor transformers.
"""

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from rich.progress import BarColumn, Progress, TextColumn

from autoprune import live
from autoprune.callbacks import Callback
from autoprune.config import SearchConfig
from autoprune.console import CleanConsole
from autoprune.logs import move_handlers
from autoprune.terminal import clean, echo
from autoprune.wording import count, duration

if TYPE_CHECKING:
    from pathlib import Path

    from autoprune.objective import Objective

LINE_EVERY = 0.1  # of a search, between two lines where stderr is no terminal
FIRST_GAP, LAST_GAP = 10.0, 300.0  # seconds between two lines of one stage, in its beginning and when it takes hours


class Display(Callback):
    """Progress of one command: a live bar on a terminal, a few lines elsewhere."""

    def __init__(self) -> None:
        console = CleanConsole(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(30),
            TextColumn("{task.fields[details]}", markup=False),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=1.0, details="", visible=False)
        self._what = "comparison"  # that has the directory
        self.named = False  # whether the directory is known to the user
        self.run: Path | None = None  # of a comparison, its own directory and not those of its searches
        self._stage, self._begun = "", 0.0
        self._next_share, self._next_time = 0.0, 0.0
        self._marks: WeakKeyDictionary[Objective, tuple[float, int]] = WeakKeyDictionary()
        self._shown: WeakKeyDictionary[Objective, tuple[float, int]] = WeakKeyDictionary()

    def __enter__(self) -> "Display":
        before = sys.stdout, sys.stderr
        self._bar.start()
        # the bar has put its own streams there, which print above it
        self._moved = move_handlers(dict(zip(before, (sys.stdout, sys.stderr), strict=True))) if self._is_live else []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handler, stream in self._moved:
            handler.setStream(stream)
        if self._is_live:  # else it would print an empty line
            self._bar.stop()

    @property
    def _is_live(self) -> bool:
        """Whether a bar is drawn; otherwise lines are printed."""
        return not self._bar.disable

    def on_start(self, config: Any, path: "Path") -> None:
        """Remember where a search begins: its directory is named with its first stage, when nothing is wrong so far."""
        if self.run is None and isinstance(config, SearchConfig):
            self.run, self._what = path, "run"

    def _name_run(self) -> None:
        if self.run is not None and not self.named:
            self.named = True
            self.on_notice(f"the {self._what} is {'in ' if self._what == 'comparison' else ''}'{self.run}'")

    def on_stage(self, stage: str, share: float) -> None:
        """Show a stage before or after the search, and the share of it that is done."""
        self._name_run()
        name = stage
        now = self._enter(name)
        if self._is_live:
            self._draw(name, share, "")
        elif now >= self._next_time:
            elapsed = now - self._begun
            if share > 0 and elapsed:
                self._line(f"{name}: {share:.0%}, {duration(elapsed * (1 - share) / share)} left")
            else:
                self._line(f"{name}, {duration(elapsed)} so far" if elapsed else name)
            self._plan(now)

    def on_scores(self, objective: "Objective") -> None:
        """Show the state of the search after a batch of scores."""
        now, spent, share = self._enter("searching"), objective.spent, share_spent(objective)
        facts = [self._best(objective), count(spent.evals, "evaluation"), self._rate(objective, now)]
        if share > 0 and objective.computed:  # a journal's seconds are not those that it takes to read
            facts.append(f"{duration(spent.seconds * (1 - share) / share)} left")
        details = ", ".join(filter(None, facts))
        if self._is_live:
            self._draw("searching", share, details)
        elif share >= self._next_share or now >= self._next_time:
            self._line(f"searching: {share:.0%}, {details}")
            self._next_share = min(1.0, share + LINE_EVERY)
            self._plan(now)
        else:
            return
        if objective.incumbents:
            self._shown[objective] = objective.loss(objective.incumbents[-1].proposal)

    def on_search_end(self, number: int, total: int, outcome: Mapping[str, Any]) -> None:
        """Show the result of one search of a comparison. It stays visible."""
        if "failed" in outcome:
            told = f"failed: {outcome['failed']}"
        else:
            loss, spent = outcome["loss"], duration(outcome["seconds"])
            shown = "overflowed" if loss is None else f"{round(loss, 4) + 0.0:.4f}"
            told = f"loss {shown}, {outcome['tokens']:,} {outcome['items']}, {spent}"
        self._line(f"search {number} of {total}: {live.shown(outcome['agent'])} seed {outcome['seed']}: {told}")

    def on_notice(self, text: str) -> None:
        """Show a problem that does not stop the search. It stays visible."""
        self._line(f"autoprune: {text}")

    def _best(self, objective: "Objective") -> str:
        """The loss of the best so far and what it is a mean of; why it has risen, if it has."""
        if not objective.incumbents:  # nothing but sensitivities so far
            return ""
        loss, tokens = objective.loss(objective.incumbents[-1].proposal)
        if not math.isfinite(loss):
            return ""
        items = objective.space.words.items
        before, fewer = self._shown.get(objective, (math.inf, 0))
        rise = f" (before {before:z.4f} on {fewer:,})" if loss > before and tokens != fewer else ""
        return f"best loss {loss:z.4f} on {tokens:,} {items}{rise}"

    def _rate(self, objective: "Objective", now: float) -> str:
        """What is scored in a second; what a journal had does not count."""
        done = objective.computed
        if not done and objective.spent.evals:
            self._marks[objective] = now, 0
            return "known from before"
        since, known = self._marks.setdefault(objective, (now, done))
        items = objective.space.words.items
        return f"{(done - known) / (now - since):,.0f} {items}/s" if now > since and done > known else ""

    def _enter(self, name: str) -> float:
        """The time; a line is due where the stage is a new one."""
        now = time.monotonic()
        if name != self._stage:
            self._stage, self._begun, self._next_share, self._next_time = name, now, 0.0, now
        return now

    def _plan(self, now: float) -> None:
        """The next line: the longer a stage takes, the more rarely."""
        self._next_time = now + min(LAST_GAP, max(FIRST_GAP, (now - self._begun) / 2))

    def _line(self, line: str) -> None:
        if self._bar.disable:
            echo(line, err=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    def _draw(self, name: str, share: float, details: str) -> None:
        total = 1.0 if share > 0 else None  # pulses where nothing is known
        name, details = clean(name), clean(details)
        self._bar.update(self._task, description=name, completed=share, total=total, details=details, visible=True)


class Silent(Display):
    """Shows nothing: `--quiet`."""

    def __init__(self) -> None:
        super().__init__()
        self._bar.disable = True

    def _line(self, line: str) -> None:
        pass


def display_of(wanted: bool | None) -> Display | None:
    """The display for where this runs: a notebook, a terminal, or lines. None if none is wanted.

    Args:
        wanted: None wants one in a notebook and on a terminal.
    """
    if wanted is False:
        return None
    console = CleanConsole(stderr=True)
    if console.is_jupyter:
        from autoprune.notebook_display import NotebookDisplay

        return NotebookDisplay()
    return Display() if wanted or console.is_terminal else None


def share_spent(objective: "Objective") -> float:
    """Share of the tightest limit that is spent, in [0, 1]. Time is included."""
    seconds = objective.limits.seconds
    return min(1.0, max(objective.progress, objective.spent.seconds / seconds if seconds else 0.0))
