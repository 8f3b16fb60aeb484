"""Keeps the progress bars of transformers out of ours."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_bars() -> Iterator[None]:
    """No bars of transformers and the hub while the context lasts."""
    from transformers.utils import logging

    wanted = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if wanted:
            logging.enable_progress_bar()
