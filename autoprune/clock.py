"""Looks at the clock that can end a search between two scores, and that a replay repeats at the same places."""

from autoprune.errors import LimitReached
from autoprune.journal import End, Journal, Replay
from autoprune.spending import Account


class Clock:
    """Args:
    account: keeps the seconds and the limit on them.
    journal: records where time was over.
    replay: what the interrupted search had done.
    """

    def __init__(self, account: Account, journal: Journal, replay: Replay) -> None:
        self._account, self._journal, self._replay = account, journal, replay
        self._looks = 0

    def look(self, computed: bool) -> None:
        """Raise `LimitReached` if the time of the search is over, or if the interrupted search ended at this look.

        Args:
            computed: whether this process has scored anything: before that, what is replayed costs no time.
        """
        self._looks += 1
        end = self._replay.end
        if end is not None and end.look == self._looks and self._account.is_over(end.seconds):
            self._account.goes_on(end.seconds)
            raise LimitReached
        if computed or not len(self._replay):
            self.tick()

    def tick(self) -> None:
        """As `look`, within work that a replay skips: the search then ended at the last look."""
        if self._account.is_over(self._account.clock()):
            self._journal.append_end(End(self._looks, self._account.stop_clock()))
            raise LimitReached
