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
    candidates: of which the one with the best expected improvement is taken.
    """

    models_losses = True

    startup: PositiveInt = 16
    candidates: PositiveInt = 24

    def sampler(self, seed: int, distributions: Distributions, reference: Levels) -> BaseSampler:
        """Optuna's, all units' levels at once; trials of one batch keep away from each other (constant liar)."""
        return TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self.startup,
            n_ei_candidates=self.candidates,
        )  # fmt: skip
