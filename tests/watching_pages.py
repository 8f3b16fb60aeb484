"""A live page that `autoprune watch` serves in a process of its own."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.test_dashboard import COMMAND


@contextmanager
def watching(path: Path, *options: str) -> Iterator[str]:
    """The address of a page that a process of its own serves, which Ctrl-C must end."""
    arguments = [sys.executable, "-c", COMMAND, "watch", str(path), "--port", "0", *options]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"watching {path}: http://"), process.stderr and process.stderr.read()
            yield line.removeprefix(f"watching {path}: ").split()[0]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode in (0, 130)
    assert err == ""
