"""The port of an exporter, which writes a policy's network in one form."""

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

    The arguments of the constructor are the exporter's options: `autoprune export RUN DIR --to NAME KEY=VALUE`. So an
    exporter is usually a dataclass, whose annotations are the types of its options. The engine calls `refuses` and
    `check` before it loads the network, because loading takes long. Then it calls `write`.
    """

    needs_network: ClassVar[bool] = True
    """Whether `write` uses the network. Otherwise the network is not loaded."""

    stage: ClassVar[str] = "writing"
    """The name of `write` in the progress display."""

    writes_trained: ClassVar[bool] = False
    """Whether `write_trained` is there. The first registered exporter that has it, and that does not refuse a run,
    writes what fine-tuning gives, and is the form of an export that names none."""

    packs: ClassVar[bool] = False
    """Whether weights of few bits are written in few bits. Otherwise they are multiplied out, and the user is told."""

    converts: ClassVar[bool] = False
    """Whether `convert` is there."""

    @property
    def padding(self) -> str | None:
        """If the files hold more than the parameters that a policy keeps: the reason, and how to avoid it.

        It is the beginning of a sentence that ends with "it has N MB", shown when the files save nothing. The default,
        None, means that the files hold only these parameters.
        """
        return None

    def refuses(self, config: "SearchConfig") -> str | None:
        """A sentence that says why runs of this configuration cannot be written in this form; None (the default) if
        they can.

        The network is not loaded yet.
        """
        return None

    def check(self, path: Path) -> None:
        """Check that `path` can be written to. The default checks nothing.

        The network is not loaded yet. Missing packages and a target with other content are reported here.

        Raises:
            UserError: it cannot be written.
        """
        return None

    @abstractmethod
    def write(self, source: "Source", path: Path) -> None:
        """Write a file or a directory.

        Args:
            source: the policy and its network. The network must be unchanged when this returns.
            path: the path that the user gave. An earlier export there is replaced.

        Raises:
            UserError: the network cannot be written in this form, or the disk is full or not writable.
        """

    def network(self, source: "Source") -> "nn.Module | None":
        """The network in memory, as `write` would write it; None (the default) if this form is only of files.

        Args:
            source: the policy and its network. The network must be unchanged when this returns.

        Raises:
            UserError: the network cannot be made in this form.
        """
        return None

    def write_trained(self, source: "Source", network: "nn.Module", path: Path) -> None:
        """Write a network that was cut to the policy and then trained. It is called only if `writes_trained` is True.

        Args:
            source: the policy, and the dense network.
            network: the trained one, with the widths of the policy.
            path: a directory. An earlier export there is replaced.

        Raises:
            UserError: as `write`.
        """
        raise NotImplementedError

    def convert(self, directory: Path, path: Path) -> None:
        """Write what an earlier export wrote in Hugging Face form. It is called only if `converts` is True.

        Args:
            directory: of the export, as `RUN/finetuned/network`.
            path: as `write` takes it.

        Raises:
            UserError: as `write`.
        """
        raise NotImplementedError


def load_exporter(name: str) -> type[Exporter]:
    """The exporter called `name`. It may be a user's function `(assembly, policy, path, **options)`.

    Raises:
        UserError: it does not exist, cannot be imported, or has no method `write`.
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
