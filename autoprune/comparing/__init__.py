"""Comparisons of agents: the plan, the searches, their results and the table, the learning curves."""
