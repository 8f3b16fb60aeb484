"""Comparisons of agents: who takes part, the searches, the league, the curves."""
