"""Consumers' weights for any set of kept groups, computed from the moments. The level store has those of levels only.

For searches of masks the moments are kept in `<cache>/moments/<key>.safetensors`: for each unit, `[D, D]` of its
consumer's inputs, float32, in the network's own order. Weights are computed on demand and rounded to the checkpoint's
dtype. The latest ones are cached.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from autoprune.cutting import reading
from autoprune.cutting.live import LiveWidth
from autoprune.errors import UserError
from autoprune.files.arrays import open_tensors
from autoprune.files.reading import explained
from autoprune.files.writing import replacing
from autoprune.levels.criterion import Reconstruction
from autoprune.levels.store import LevelStore
from autoprune.space import Unit

BYTES = 256 * 2**20  # of weights remembered


class MaskedWeights:
    """Reconstructed consumers of masks.

    Args:
        store: whose order the live network's groups are in.
        units: of the space.
        widths: of the live network, one for each unit.
        moments: the file; None where the criterion does not reconstruct, and every consumer stays as it is.
        dtype: the checkpoint's, which weights are rounded to.
        bench: the device to compute on, where blocks come to it in turn and only one block's moments have room; None
            is where the weights are.

    Raises:
        UserError: the file is damaged.
    """

    def __init__(
        self,
        store: LevelStore,
        units: Sequence[Unit],
        widths: Sequence[LiveWidth],
        moments: Path | None,
        dtype: torch.dtype,
        bench: torch.device | None = None,
    ) -> None:
        self._store, self._units, self._widths = store, tuple(units), tuple(widths)
        self._dtype, self.path, self._bench = dtype, moments, bench
        self._reconstructions: dict[int, Reconstruction] = {}
        self._latest: OrderedDict[tuple[int, bytes], Tensor] = OrderedDict()
        self._bytes = 0

    def consumer(self, u: int, bits: bytes, index: Tensor) -> Tensor | None:
        """The weight of unit `u`'s consumer where only these groups are kept, in its own layout; None: as it is.

        Args:
            u: the unit.
            bits: the unit's part of the mask.
            index: the same as ascending group numbers, `[K]`.
        """
        unit = self._units[u]
        if self.path is None or not 0 < len(index) < unit.groups:
            return None
        key = u, bits
        if key not in self._latest:
            self._remember(key, self._compute(u, index).to(self._store.device))
        self._latest.move_to_end(key)
        return self._latest[key]

    def _compute(self, u: int, index: Tensor) -> Tensor:
        width = self._widths[u]
        weight_OD = width.consumer_weight
        device = self._bench or weight_OD.device
        inputs = _inputs(index.to(device), weight_OD.shape[1] // self._units[u].groups)
        new_OK = self._reconstruction(u, device).on(inputs).to(self._dtype).to(weight_OD.dtype)
        return reading.laid_out(width, new_OK).contiguous()

    def _reconstruction(self, u: int, device: torch.device) -> Reconstruction:
        """Of a unit, its groups in the live network's order."""
        if u not in self._reconstructions:
            unit = self._units[u]
            if self._bench is not None:
                kept = {v: one for v, one in self._reconstructions.items() if self._units[v].block == unit.block}
                self._reconstructions = kept
            assert self.path is not None
            with explained("the file of moments", self.path, "delete that file"), open_tensors(self.path) as file:
                h_DD = file.get_tensor(unit.name)
                columns = self._widths[u].consumer_weight.shape[1]
                if h_DD.shape != (columns, columns) or not h_DD.is_floating_point():
                    raise ValueError(f"{unit.name} is {h_DD.dtype} {tuple(h_DD.shape)} in it")
            inputs = _inputs(self._store.order(u).to(h_DD.device), h_DD.shape[0] // unit.groups)
            moments_DD = h_DD[inputs][:, inputs].to(device)
            self._reconstructions[u] = Reconstruction(self._widths[u].consumer_weight.to(device), moments_DD)
        return self._reconstructions[u]

    def _remember(self, key: tuple[int, bytes], weight: Tensor) -> None:
        self._latest[key] = weight
        self._bytes += weight.numel() * weight.element_size()
        while self._bytes > BYTES and len(self._latest) > 1:
            _, oldest = self._latest.popitem(last=False)
            self._bytes -= oldest.numel() * oldest.element_size()


def save_moments(path: Path, units: Sequence[Unit], moments: Sequence[Sequence[Tensor]]) -> None:
    """Write the moments of every unit in one step.

    Raises:
        UserError: the disk is full or not writable.
    """
    flat = [h_DD.float().cpu().contiguous() for row in moments for h_DD in row]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            save_file({unit.name: h_DD for unit, h_DD in zip(units, flat, strict=True)}, file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the moments could not be written to '{path}' ({error}).") from error


def _inputs(groups: Tensor, size: int) -> Tensor:
    """The consumer's inputs that belong to groups, `[K * size]`."""
    return (groups[:, None] * size + torch.arange(size, device=groups.device)).flatten()
