"""Searches of every registered agent that are killed at two moments, resumed, and compared with uninterrupted ones.

A script, run by test_resume.py in a process of its own: `killed_searches.py SETTINGS FOLDER`. Each search is killed by
SIGKILL in the middle of a score, in a process forked from this one, so that nothing has to be loaded again.
"""

import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune import registry, study
from autoprune.assembly import Assembly, assemble
from autoprune.callbacks import SILENT
from autoprune.config import load_config
from autoprune.ports.scorer import Scorer, ScorerWrapper
from autoprune.space import Proposal
from tests.contracts.test_ends import QUICK

EVALS = 48


class Deadly(ScorerWrapper):
    """Kills its process when it is asked for a score once more than so many times."""

    def __init__(self, scorer: Scorer, calls: int) -> None:
        super().__init__(scorer)
        self._left = calls

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        losses_PS = super().score(policies, sequences)
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses_PS


class Counted(ScorerWrapper):
    """Counts its calls."""

    calls = 0

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        self.calls += 1
        return super().score(policies, sequences)


def search(assembly: Assembly, agent: str, out: Path, scorer: Scorer) -> None:
    changes = {"agent": agent, "agent_options": QUICK.get(agent, {}), "max_evals": EVALS, "seed": 3}
    study.search_on(assembly, scorer, assembly.config.model_copy(update=changes), out, SILENT)


def killed(assembly: Assembly, agent: str, out: Path, calls: int) -> None:
    """The search, begun or resumed, in a process that dies after so many calls of the scorer."""
    child = os.fork()
    if not child:
        try:
            search(assembly, agent, out, Deadly(study.scorer_of(assembly, None), calls))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{agent} was not killed"
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not (out / "policy.json").exists()


def main() -> None:
    settings, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    assembly = assemble(load_config(None, settings), masks=True)
    for agent in registry.names("agents"):
        scorer = Counted(study.scorer_of(assembly, None))
        search(assembly, agent, folder / agent / "whole", scorer)
        if scorer.calls > 1:  # not of `uniform`
            first, second = sorted(
                random.Random(agent).sample(range(1, scorer.calls), 2) if scorer.calls > 2 else (0, 1)
            )
            killed(assembly, agent, folder / agent / "killed", first)
            killed(assembly, agent, folder / agent / "killed", second - first)
        search(assembly, agent, folder / agent / "killed", study.scorer_of(assembly, None))


if __name__ == "__main__":
    main()
