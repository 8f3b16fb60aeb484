"""The input of an exporter: a policy and its network, which is loaded on first use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from torch import nn

from autoprune.assembly import Assembly
from autoprune.cards.sections import Recovery
from autoprune.config import SearchConfig
from autoprune.policy import Policy
from autoprune.provenance import proposal_of
from autoprune.refits import refit
from autoprune.space import Proposal


class Source:
    """A policy of a finished run.

    Args:
        policy: as it was read from its file.
        load: gives the assembly of the run, with the dense network.
        config: the configuration of the run; None is that of the assembly.
        recovery: what was done to the network after the search; None where nothing was.
    """

    def __init__(
        self,
        policy: Policy,
        load: Callable[[], Assembly],
        config: SearchConfig | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        self.policy, self._load, self._config, self.recovery = policy, load, config, recovery

    @cached_property
    def assembly(self) -> Assembly:
        """Everything that the search had, but its text and metrics.

        Raises:
            UserError: it cannot be loaded.
        """
        return self._load()

    @property
    def config(self) -> SearchConfig:
        """The configuration of the run. It needs no network."""
        return self._config or self.assembly.config

    @property
    def network(self) -> nn.Module:
        """The dense network: a transformers model, or the module of the user's function; leave it as it is."""
        return self.assembly.loaded.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, as transformers has it; None where the network reads no text."""
        return self.assembly.loaded.tokenizer

    @property
    def proposal(self) -> Proposal:
        """The policy's levels or mask.

        Raises:
            UserError: the policy is of another network, or of other units or levels.
        """
        return proposal_of(self.assembly, self.policy)

    def check(self) -> None:
        """See that the policy and the network belong together.

        Raises:
            UserError: they do not.
        """
        proposal_of(self.assembly, self.policy)

    @contextmanager
    def pruned(self) -> Iterator[nn.Module]:
        """The network with the policy in place, smaller than the dense one, until the context ends.

        It is the network above, with other weights: copy what is to be kept. Parts that are gone hold no weights.
        """
        proposal = self.proposal
        try:
            self.assembly.view.rest()
            self._place(proposal)
            yield self.assembly.loaded.model
        finally:
            self.assembly.placer.release()

    def _place(self, proposal: Proposal) -> None:
        if self.policy.refit is None or self.recovery is not None:  # what is recovered has weights of its own
            self.assembly.placer.place(proposal)
        else:
            refit(self.assembly, proposal, self.policy.refit.digest).place(self.assembly.placer)
