"""A state that does not say how many examples a step has is of another training, and no traceback."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autoprune.errors import UserError
from autoprune.training.state import FILE, done


def test_a_state_without_sizes(tmp_path: Path) -> None:
    told = {"step": "3", "seconds": "1.0", "tuning": '{"lr": 0.1, "batch": "x"}', "mark": "m"}
    save_file({"network.a": torch.zeros(1)}, tmp_path / FILE, told)
    with pytest.raises(UserError, match="batch=x"):
        done(tmp_path, {"lr": 0.1, "batch": 2, "accumulate": 1, "workers": 1}, "m")
