"""Gaussian-process Bayesian optimisation (log expected improvement) of Optuna. It suits a few dozen units."""

from dataclasses import dataclass
from importlib.util import find_spec

from optuna.samplers import BaseSampler, GPSampler
from pydantic import PositiveInt

from autoprune.agents.sampled import Distributions, SampledAgent
from autoprune.errors import UserError
from autoprune.space import Levels


@dataclass
class GP(SampledAgent):
    """Args:
    batch: number of trials that are asked for at once. Each takes about half a second.
    startup: random trials before the process is fitted.
    """

    models_losses = True
    patience = 5  # a batch takes seconds

    startup: PositiveInt = 16

    def __post_init__(self) -> None:
        """Find what is missing before anything is computed."""
        super().__post_init__()
        if find_spec("scipy") is None:
            raise UserError("the agent 'gp' needs the package scipy: pip install 'autoprune[gp]'.")

    def sampler(self, seed: int, distributions: Distributions, reference: Levels) -> BaseSampler:
        """Optuna's, with noise: trials are scored on samples."""
        return GPSampler(seed=seed, n_startup_trials=self.startup, deterministic_objective=False)
