"""Keeps the progress bars of transformers out of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_bars() -> Iterator[None]:
    """No bars of transformers and the hub while the context lasts. The user's own settings of both are restored."""
    from huggingface_hub import utils
    from transformers.utils import logging

    hub: Any = utils  # they are not among the names that it exports for type checkers

    wanted, downloads = logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    if wanted or downloads:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if wanted:
            logging.enable_progress_bar()  # and those of the hub with them
            if not downloads:
                hub.disable_progress_bars()
        elif downloads:
            hub.enable_progress_bars()
