"""Searches in rounds: prune some, train, search again from there on the trained weights, to the final budget.

Adapt-Pruner (Wang et al. 2025, "Adapt-Pruner: Adaptive Structural Pruning for Efficient Small Language Model
Training"). `plan` shares budgets and limits among the rounds, `running` runs them in one directory.
"""

from autoprune.rounds.running import resume, start

__all__ = ["resume", "start"]
