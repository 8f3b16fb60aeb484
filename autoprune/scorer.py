"""The name under which scorers of users' own import their port."""

from autoprune.ports.scorer import POLICIES_AT_ONCE, Scorer, ScorerWrapper

__all__ = ["POLICIES_AT_ONCE", "Scorer", "ScorerWrapper"]
