"""Several processes that train one network, through `torch.distributed`: DDP (Li et al. 2020), or FSDP2.

With DDP every process has the whole network, and gradients are averaged. With FSDP2 weights, gradients and the
optimizer's state are spread over the processes; a block's weights are gathered for its passes. Networks with BatchNorm
take the statistics of the first process, as DDP does.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn

from autoprune.training.step import Loss
from autoprune.training.team import Team

FEWEST = 2
"""Examples of a process in a step, because BatchNorm needs two."""


class Processes(Team):
    """The process group of `torch.distributed`, which has begun.

    Args:
        sharded: names of the blocks that are sharded one by one, as the network is; None leaves it whole (DDP).
        device: the device of this process.
    """

    def __init__(self, sharded: Sequence[str] | None, device: torch.device) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._sharded, self._device = sharded, device
        # numbers that all agree on stay on the CPU, which is quick and waits for no GPU
        self._numbers = distributed.new_group(backend="gloo") if device.type == "cuda" else None

    def wrapped(self, loss: nn.Module) -> nn.Module:
        """DDP of the loss; or the same loss, whose network is sharded."""
        if self._sharded is None:
            from torch.nn.parallel import DistributedDataParallel

            # some networks have weights that a task's loss does not use
            return DistributedDataParallel(loss, find_unused_parameters=True, gradient_as_bucket_view=True)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        assert isinstance(loss, Loss)
        mesh = init_device_mesh(self._device.type, (self.size,))
        for name in self._sharded:
            fully_shard(loss.student.get_submodule(name), mesh=mesh)
        fully_shard(loss.student, mesh=mesh)
        return loss

    def parts(self, some: Tensor, at_once: int) -> list[tuple[Tensor, float]]:
        """As many parts for each process, some of them perhaps with a weight of 0, because passes are collective."""
        sharing = max(1, min(self.size, len(some) // FEWEST))
        shares = torch.tensor_split(some, sharing)
        number = math.ceil(max(len(share) for share in shares) / at_once)
        own = shares[self.rank] if self.rank < sharing else some[:0]
        parts = [(part, len(part) / len(some)) for part in torch.split(own, at_once) if len(part)]
        return parts + [(some[:FEWEST], 0.0)] * (number - len(parts))

    def summed(self, value: Tensor) -> Tensor:
        """The sum over processes."""
        total = value.clone()
        distributed.all_reduce(total)
        return total

    def agreed(self, *values: float) -> list[float]:
        """The values of process 0."""
        shared = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(shared, 0, group=self._numbers)
        return [float(value) for value in shared]

    def whole(self, tensor: Any) -> Tensor:
        """Gathered where it is sharded; only process 0 needs it."""
        full: Tensor = tensor.detach().full_tensor() if hasattr(tensor, "full_tensor") else tensor.detach()
        return full.cpu() if self.rank == 0 else torch.empty(0)

    def put(self, whole: Tensor, into: Any) -> None:
        """Copy a whole tensor into one of the network, or a process's part of it."""
        into.copy_(self._shard(whole, into) if hasattr(into, "full_tensor") else whole)

    def as_state(self, whole: Tensor, weight: Any) -> Tensor:
        """Sharded as its weight is."""
        if whole.dim() and hasattr(weight, "full_tensor"):
            return self._shard(whole, weight)
        return super().as_state(whole, weight)

    def synchronised(self, loss: Any, last: bool) -> Any:
        """DDP exchanges gradients with the last part; FSDP2 with every part, which needs less memory."""
        return nullcontext() if last or self._sharded is not None else loss.no_sync()

    def _shard(self, whole: Tensor, like: Any) -> Tensor:
        from torch.distributed.tensor import distribute_tensor

        shard: Tensor = distribute_tensor(whole.to(self._device), like.device_mesh, like.placements, src_data_rank=None)
        return shard
