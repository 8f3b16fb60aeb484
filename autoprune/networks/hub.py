"""Whether the model hub can be reached: without a connection, its client would try for half a minute."""

from functools import cache

SECONDS = 3.0


@cache
def is_reachable() -> bool:
    """Whether the hub answers, with whatever; asked once per process, and not at all offline."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # of the library that makes the connection, which is another one in other versions
        return False
    return True


def is_downloaded(name: str) -> bool:
    """Whether the hub's cache has the configuration of a model of this name."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        return False
