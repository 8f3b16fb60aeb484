"""Moved to autoprune/cutting."""

from autoprune.cutting.dense import materialise as materialise
from autoprune.cutting.live import AS_DENSE as AS_DENSE
from autoprune.cutting.live import LevelWeights as LevelWeights
from autoprune.cutting.live import LiveWidth as LiveWidth
