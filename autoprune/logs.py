"""The standard logger "autoprune". It has no handler but a NullHandler, so that it prints nothing unless it is set up.

Warnings are the notices of a search; infos are its begin, its stages, every new best and its end; debug messages are
batches of scores, steps of a training and shares of stages.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from autoprune.callbacks import Best, Callback

if TYPE_CHECKING:
    from pathlib import Path

    from autoprune.objective import Objective

LOGGER = logging.getLogger("autoprune")
LOGGER.addHandler(logging.NullHandler())


class Log(Callback):
    """Writes the moments of a search to the logger."""

    def __init__(self) -> None:
        self._stage = ""

    def on_start(self, config: Any, path: "Path") -> None:
        """As an info."""
        LOGGER.info("'%s' begins", path)

    def on_stage(self, stage: str, share: float) -> None:
        """As an info when it begins; later shares as debug messages."""
        new, self._stage = stage != self._stage, stage
        if new:
            LOGGER.info("%s", stage)
        else:
            LOGGER.debug("%s: %.0f %%", stage, 100 * share)

    def on_notice(self, text: str) -> None:
        """As a warning."""
        LOGGER.warning("%s", text)

    def on_scores(self, objective: "Objective") -> None:
        """As a debug message."""
        self._stage = ""
        spent, word = objective.spent, objective.space.words.items
        LOGGER.debug("%d evaluations, %d %s, %.1f s", spent.evals, spent.tokens, word, spent.seconds)

    def on_best(self, answer: Best) -> None:
        """As an info."""
        LOGGER.info("new best: loss %.4f on %d, after %d", answer.loss, answer.scored, answer.tokens)

    def on_step(self, step: int, measures: Mapping[str, float]) -> None:
        """As a debug message."""
        LOGGER.debug("step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in measures.items()))

    def on_search_end(self, number: int, total: int, outcome: Mapping[str, Any]) -> None:
        """As an info."""
        LOGGER.info("search %d of %d ended: %s seed %s", number, total, outcome["agent"], outcome["seed"])

    def on_end(self, result: Any) -> None:
        """As an info."""
        LOGGER.info("'%s' is written", result.path)


def move_handlers(before: Mapping[TextIO, TextIO]) -> list[tuple["logging.StreamHandler[TextIO]", TextIO]]:
    """Let handlers of the root logger and of ours write to other streams.

    Args:
        before: stream -> the one that takes its place.

    Returns:
        The handlers that were changed, with the streams that they had.
    """
    moved = []
    for handler in (*logging.root.handlers, *LOGGER.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream in before:
            moved.append((handler, handler.stream))
            handler.setStream(before[handler.stream])
    return moved
