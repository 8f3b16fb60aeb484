"""Options of rewards: `reward_options.KEY=VALUE`.

The options of a reward that is a function are its keyword-only arguments, with their defaults and types. Those of a
reward that is a class are the arguments of its constructor; its objects are called with the record.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from autoprune import live, registry
from autoprune.arguments import made
from autoprune.envs.rewards.record import Reward
from autoprune.usercode import located


def load_reward(reward: str | Reward, options: Mapping[str, Any] | None = None) -> Reward:
    """A reward with its options.

    Args:
        reward: a name, `package.module:Object`, `file.py:Object`, a function or a class.
        options: the options that the user gave, by name. The others keep their defaults.

    Raises:
        UserError: there is no such reward or option, or an option has a wrong value. The message names the options.
    """
    part = registry.load("rewards", reward)
    if not options and not isinstance(part, type):
        return part  # type: ignore[no-any-return]
    called = f"the reward '{live.shown(reward)}'" if isinstance(reward, str) else f"the reward {located(reward)}"
    maker = part if isinstance(part, type) else _maker(part)
    return made(maker, options or {}, called, "option", "reward_options.")  # type: ignore[no-any-return]


def _maker(function: Reward) -> Callable[..., Reward]:
    """A constructor of the function with options; its arguments are the function's keyword-only ones."""

    def constructor(**options: Any) -> Reward:
        return functools.update_wrapper(functools.partial(function, **options), function)

    own = function if inspect.isfunction(function) or inspect.ismethod(function) else type(function).__call__
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function of Python's own
        parameters = {}.values()
    takes = [one for one in parameters if one.kind in (one.KEYWORD_ONLY, one.VAR_KEYWORD)]
    constructor.__signature__ = inspect.Signature(takes)  # type: ignore[attr-defined]
    try:
        hints = get_type_hints(own, include_extras=True)
    except (NameError, TypeError):  # an annotation of the user's that does not exist
        hints = {}
    constructor.__annotations__ = {one.name: hints[one.name] for one in takes if one.name in hints}
    return constructor
