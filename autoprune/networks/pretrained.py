"""The only module that calls transformers' `from_pretrained`. Code beside weights runs only if the user allows it.

Without a setting, transformers would ask on standard input and take a "yes" from a pipe for the user's. Weights are
safetensors; pickles are never read.
"""

import os
import threading
from typing import Any

from autoprune.errors import UserError
from autoprune.networks.hub import is_reachable
from autoprune.networks.quiet import without_bars

LOADING = threading.RLock()
"""Held while transformers makes a network: two at the same time, in two threads, lose weights that are tied."""
CONFIG, TOKENIZER, PROCESSOR = "AutoConfig", "AutoTokenizer", "AutoImageProcessor"


def load(auto: str, path: str, trust_remote_code: bool = False, **options: Any) -> Any:
    """`from_pretrained` of an auto class.

    Args:
        auto: its name; those of models load weights.
        path: a directory or a hub name.
        trust_remote_code: run the code that ships with it. Off unless the user turns it on.
        options: of `from_pretrained`.

    Raises:
        UserError: code would have to be run.
        Exception: whatever transformers raises besides.
    """
    if auto not in (CONFIG, TOKENIZER, PROCESSOR):
        options["use_safetensors"] = True
    if not os.path.isdir(path) and not is_reachable():
        options["local_files_only"] = True  # what was downloaded before; else the client tries for half a minute
    try:
        with LOADING, without_bars():
            return auto_class(auto).from_pretrained(path, trust_remote_code=trust_remote_code, **options)
    except ValueError as error:
        if trust_remote_code or "trust_remote_code" not in str(error):
            raise
        raise UserError(
            f"'{path}' needs code that lies beside its weights, and autoprune runs none of it unless a search is "
            "given --trust-remote-code (trust_remote_code=true): read that code first."
        ) from error


def auto_class(name: str) -> Any:
    """A class of transformers by name."""
    import transformers

    return getattr(transformers, name)
