"""Keeps the progress bars of transformers out of ours."""

import warnings
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
        _call(logging.disable_progress_bar)
    try:
        yield
    finally:
        if wanted:
            _call(logging.enable_progress_bar)  # and those of the hub with them
            if not downloads:
                _call(hub.disable_progress_bars)
        elif downloads:
            _call(hub.enable_progress_bars)


def _call(change: Any) -> None:
    """Change a setting. Where the environment has fixed that of the hub, the hub would warn that it stays as it is."""
    from huggingface_hub import constants

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        change()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change()
