"""SparseGPT: single weights leave in blocks of inputs, and the others are corrected (Frantar & Alistarh 2023).

It is what `obs` does for forms that remove single weights (levels/weights.py). Groups are ordered as by `obs`.
"""

from autoprune.levels.obs import OptimalBrainSurgeon


class SparseGPT(OptimalBrainSurgeon):
    """Eliminate what changes the output least, and correct what stays."""
