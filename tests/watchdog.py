"""A time within which something must end: what hangs fails its test, and does not hold up the others."""

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Hangs(BaseException):
    """No `Exception`, so that nothing on the way takes it for its own."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise `Hangs` where it is then; end the process where that does not help, as in a loop without Python."""

    def bark(_: int, frame: FrameType | None) -> None:
        raise Hangs(f"still running after {seconds} s, at {frame}")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(4 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
