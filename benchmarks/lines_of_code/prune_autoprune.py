"""Prune every layer by half, with calibration data and without a search, and save the network: with autoprune."""

import autoprune

autoprune.search(model="path/to/model", data="text.txt", budgets="50%", agent="uniform", out="runs/pruned").export(
    "half"
)
