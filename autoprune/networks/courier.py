"""Copies tensors to the device in a separate thread and, on a CUDA device, in a separate stream."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class Courier:
    """Args:
    device: where copies are made.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="autoprune-streaming")

    def send(self, host: Sequence[Tensor]) -> tuple[list[Tensor], Future[Any]]:
        """Fresh tensors on the device, and when the copies into them have been issued.

        They are allocated in the compute stream, whose memory they take over and give back to: the copy waits for
        what that stream has been given so far, and no memory is held in a second pool.
        """
        device = [torch.empty_like(tensor, device=self._device) for tensor in host]
        ready = None if self._stream is None else torch.cuda.current_stream(self._device).record_event()
        return device, self._thread.submit(self._copy, host, device, ready)

    def _copy(self, host: Sequence[Tensor], device: Sequence[Tensor], ready: Any) -> Any:
        if self._stream is None:
            for source, target in zip(host, device, strict=True):
                target.copy_(source)
            return None
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            for source, target in zip(host, device, strict=True):
                # a mapped file cannot be pinned: it passes through buffers that torch pins once and uses again
                pinned = source if source.is_pinned() else source.pin_memory()
                target.copy_(pinned, non_blocking=True)
            return self._stream.record_event()

    def wait(self, arrival: Future[Any]) -> None:
        """Let the compute stream wait for copies, and this thread until they have been issued."""
        event = arrival.result()
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)
