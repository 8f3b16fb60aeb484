"""Tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023), as in Optuna."""

from dataclasses import dataclass

from optuna.samplers import BaseSampler, TPESampler
from pydantic import PositiveInt

from autoprune.agents.sampled import Distributions, SampledAgent
from autoprune.space import Levels


@dataclass
class TPE(SampledAgent):
    """Args:
    startup: random trials before the estimator is used.
    candidates: number of candidates. The one with the best expected improvement is taken.
    """

    models_losses = True

    startup: PositiveInt = 16
    candidates: PositiveInt = 24

    def sampler(self, seed: int, distributions: Distributions, reference: Levels) -> BaseSampler:
        """Optuna's sampler for the levels of all units. Trials of a batch repel each other (constant liar)."""
        return TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self.startup,
            n_ei_candidates=self.candidates,
        )  # fmt: skip
