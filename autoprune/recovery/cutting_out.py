"""Cuts the network of a run's policy out of the dense one."""

from functools import partial

from torch import nn

from autoprune.assembly import Assembly
from autoprune.policy import Policy
from autoprune.ports.task import Progress
from autoprune.provenance import proposal_of
from autoprune.training.candidate import copied
from autoprune.training.refit import place_refitted


def cut_out(
    assembly: Assembly, policy: Policy, refit: bool = False, progress: Progress = lambda stage, share: None
) -> nn.Module:
    """Copy the network of a policy, in evaluation mode. The live network is dense afterwards.

    Args:
        refit: whether its consumers are refitted (training/refit.py).
        progress: called with the share of the refit that is done.
    """
    proposal = proposal_of(assembly, policy)
    if refit:
        tokens_NT = assembly.splits.reconstruction.to(assembly.config.device)
        batch, told = assembly.config.batch_size(), partial(progress, "refitting")
        place_refitted(assembly.placer, proposal, tokens_NT, batch, told)
    else:
        assembly.placer.place(proposal)
    return copied(assembly.placer)
