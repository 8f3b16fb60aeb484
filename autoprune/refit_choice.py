"""Whether the refit of the best policy is what a run hands over.

The refit is computed on the reconstruction split, and it is kept if it lowers the loss on a part of the search split.
The validation split is not asked.
"""

import math
from typing import NamedTuple

from autoprune.assembly import Assembly
from autoprune.callbacks import Callback
from autoprune.policy import Refit
from autoprune.refits import Refitted, refit
from autoprune.space import Proposal
from autoprune.validation import Row, mean_losses

CHECKED = 16
"""Samples of the search split on which the refitted network is compared with the one that was found."""


class Kept(NamedTuple):
    """A refit that is handed over: its weights, and the losses on the search split without it and with it."""

    network: Refitted
    found: float
    refitted: float

    def record(self, assembly: Assembly, found: Row) -> Refit:
        """What the policy file says of it; `found` was measured on the validation split without it."""
        return Refit(
            digest=self.network.digest,
            sequences=len(assembly.splits.reconstruction),
            seconds=self.network.seconds,
            search={"found": _finite(self.found), "refitted": _finite(self.refitted)},
            found={key: _finite(value) for key, value in found.losses.items()},
        )


def refit_of(assembly: Assembly, best: Proposal, callbacks: Callback) -> Kept | None:
    """The refit of the best policy; None if it is not wanted, cannot be made or makes the loss no lower."""
    choices = enumerate(assembly.placer.choices(best))
    may = any(assembly.placer.refits(b, unit, choice) for b, row in choices for unit, choice in enumerate(row))
    if not assembly.config.refit or best == assembly.space.dense or not may:
        return None
    if assembly.view.streamed:
        callbacks.on_notice("the best policy is not refitted, because the blocks are streamed to the device.")
        return None
    network = refit(assembly, best, progress=callbacks.on_stage)
    some_NT = assembly.splits.search[:CHECKED]
    losses_PK = mean_losses(assembly, some_NT, [best, network], [assembly.config.loss], lambda stage, share: None)
    found, refitted = losses_PK[:, 0].tolist()
    if refitted < found:
        return Kept(network, found, refitted)
    callbacks.on_notice(
        f"the refit does not lower the loss on the search split ({refitted:.4f}, {found:.4f} without it): the network "
        "is validated and exported as it was found."
    )
    return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
