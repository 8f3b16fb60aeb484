"""What a whole dense network has of the metrics that count units."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoprune.ports.task import Prepared, Task


def whole_network(prepared: "Prepared", task: "Task") -> dict[str, float]:
    """Parameters (tied ones count once) and multiply-accumulates per item of the network as it is now placed."""
    some_1T = prepared.splits.validation[:1].to(prepared.config.device)
    macs = task.macs(prepared.view, some_1T, prepared.config.workload_of())
    return {"params": float(prepared.loaded.n_params), "macs": macs}
