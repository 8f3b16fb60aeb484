"""Statistics of a unit before anything is scored: its weights, its input activations, the output errors of its levels.

They are stored with the levels, because they are computed from the dense weights and the moments of the reconstruction
split. Agents may use them; the pruning environment shows them as observations.
"""

from dataclasses import dataclass

MAGNITUDE_STEP = 0.1
"""Standard deviations between two magnitudes at which `UnitStatistics.magnitudes` counts weights."""
MAGNITUDES = 40
"""Number of these magnitudes."""


@dataclass(frozen=True)
class UnitStatistics:
    """Layer statistics of one unit.

    Args:
        weight_rms: root mean square of the weights of producers and consumer.
        weight_spread: standard deviation of the groups' norms over their mean; 0 where all groups weigh the same.
        weight_kurtosis: fourth standardised moment of the weights; 3 for a normal distribution.
        pq_index: 1 - d^(1/q - 1/p) |w|_p / |w|_q of the groups' norms with p = 0.5, q = 1, in [0, 1]: how
            compressible they are (Diao et al. 2023, "Pruning deep neural networks from a sparsity perspective", eq. 1).
        activation_rms: root mean square of the consumer's inputs.
        activation_rank: participation ratio of the inputs' second moments, tr(H)^2 / (D tr(H^2)), in (0, 1].
        output_errors: at each level, E|Wx - W_K x_K|^2 / E|Wx|^2 of the consumer, 0 at level 0 and 1 when dropped.
        magnitudes: shares of the weights whose magnitude is at most 0.1, 0.2, ... 4 times their standard deviation.
            Empty in statistics of earlier versions.
    """

    weight_rms: float
    weight_spread: float
    weight_kurtosis: float
    pq_index: float
    activation_rms: float
    activation_rank: float
    output_errors: tuple[float, ...]
    magnitudes: tuple[float, ...] = ()
