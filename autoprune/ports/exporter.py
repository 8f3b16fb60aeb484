"""The port of an exporter: what writes a policy's network in one form."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from autoprune import registry, usercode
from autoprune.ports.adapting import part_class

if TYPE_CHECKING:
    from torch import nn

    from autoprune.config import SearchConfig
    from autoprune.exporters.source import Source


class Exporter(ABC):
    """Writes a policy's network in one form.

    The arguments of an exporter's constructor are its options: `autoprune export RUN DIR --to NAME KEY=VALUE`. So an
    exporter is best a dataclass, whose annotations say what an option may be. The engine calls `refuses` and `check`
    before it loads the network, which takes long, then `write`.
    """

    needs_network: ClassVar[bool] = True
    """Whether `write` uses the network. Without it the network is not loaded."""

    stage: ClassVar[str] = "writing"
    """What the progress display calls `write`."""

    writes_trained: ClassVar[bool] = False
    """Whether `write_trained` is there. The first registered exporter that has it, and that does not refuse a run,
    writes what fine-tuning gives, and is the form of an export that names none."""

    @property
    def padding(self) -> str | None:
        """Where the files hold more than the parameters that a policy keeps: why, and how to avoid it.

        It begins a sentence that ends with "it has N MB", which the user is told where the files save nothing. By
        default None: the files hold these parameters alone.
        """
        return None

    def refuses(self, config: "SearchConfig") -> str | None:
        """Why no run of this configuration can be written in this form, in a sentence; None where it can, the default.

        The network is not loaded yet.
        """
        return None

    def check(self, path: Path) -> None:
        """See that nothing is in the way of writing to `path`. By default nothing is looked at.

        The network is not loaded yet: packages that are missing and a target that holds something else are told here.

        Raises:
            UserError: it cannot be written.
        """
        return None

    @abstractmethod
    def write(self, source: "Source", path: Path) -> None:
        """Write a file or a directory.

        Args:
            source: the policy, and the network that it is of. The network must be as before when this returns.
            path: what the user gave; an earlier export that is there is replaced.

        Raises:
            UserError: the network cannot be written in this form, or the disk is full or not writable.
        """

    def write_trained(self, source: "Source", network: "nn.Module", path: Path) -> None:
        """Write a network that was cut to the policy and trained since, where `writes_trained` is True.

        Args:
            source: the policy, and the dense network.
            network: the trained one, with the widths of the policy.
            path: a directory; an earlier export that is there is replaced.

        Raises:
            UserError: as `write`.
        """
        raise NotImplementedError


def load_exporter(name: str) -> type[Exporter]:
    """The exporter called `name`. A function `(assembly, policy, path, **options)` of the user's is one, too.

    Raises:
        UserError: there is none, it cannot be imported, or it has no method `write`.
    """
    part = registry.load("exporters", name)
    if callable(part) and not isinstance(part, type):
        return _of_function(part)
    found: type[Exporter] = part_class(Exporter, "exporters", name)
    return found


FUNCTION = 3
"""Arguments of a user's function that are no options: assembly, policy and path."""


def _of_function(function: Callable[..., Any]) -> type[Exporter]:
    """An exporter that calls a function, whose further arguments are its options."""

    class OfFunction(Exporter):
        def __init__(self, **options: Any) -> None:
            self._options = options

        def write(self, source: "Source", path: Path) -> None:
            usercode.call("exporter", function, source.assembly, source.policy, path, **self._options)

    parameters = list(inspect.signature(function).parameters.values())[FUNCTION:]
    named = [
        one if one.kind == one.VAR_KEYWORD else one.replace(kind=one.KEYWORD_ONLY)
        for one in parameters
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY, one.VAR_KEYWORD)
    ]
    OfFunction.__doc__ = function.__doc__
    with suppress(NameError, TypeError):  # annotations that name what is not there check nothing
        OfFunction.__init__.__annotations__ = get_type_hints(function)
    OfFunction.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    return OfFunction
