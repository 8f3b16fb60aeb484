"""Early stopping: the network of the best epoch is kept, and training ends when no better one comes.

Two files are beside the state of an interrupted training: `best.safetensors`, the network of the best epoch, and
`losses.json`, the validation loss after each epoch by the number of steps. An epoch that is trained again after an
interruption is measured again, with the same loss.
"""

import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.errors import UserError
from autoprune.files.arrays import read_tensors
from autoprune.files.reading import explained, read_json
from autoprune.files.writing import own_folder, replacing, write_atomically
from autoprune.policy import to_json
from autoprune.ports.training import TrainingSet
from autoprune.training.team import ALONE, Team

BEST, LOSSES = "best.safetensors", "losses.json"


class Stopping:
    """Args:
    student: the network that is trained, with its adapters where it has some.
    examples: measures it on the validation split.
    patience: number of epochs without a smaller loss after which training ends.
    folder: where to keep the best network; None keeps it in memory alone.
    team: the processes that train together. All of them measure, and agree on what the first one measured.

    Raises:
        UserError: the files of an interrupted training are damaged.
    """

    def __init__(
        self, student: nn.Module, examples: TrainingSet, patience: int, folder: Path | None, team: Team = ALONE
    ) -> None:
        self._student, self._examples, self._patience, self._folder = student, examples, patience, folder
        self._team = team
        saved = student.state_dict().keys()
        own = {name: p for name, p in student.named_parameters() if p.requires_grad}
        self._tensors: dict[str, Tensor] = own | {n: b for n, b in student.named_buffers() if n in saved}
        self._losses: dict[int, float] = {}
        self._best: dict[str, Tensor] = {}
        if folder is not None and (folder / LOSSES).exists():
            with explained("the best network of fine-tuning", folder, "delete that folder"):
                losses = dict(read_json(folder / LOSSES))
                self._losses = {int(step): math.inf if x is None else float(x) for step, x in losses.items()}
                self._best = read_tensors(folder / BEST)
                if {n: t.shape for n, t in self._best.items()} != {n: t.shape for n, t in self._tensors.items()}:
                    raise ValueError("it is of other weights")

    @property
    def best_step(self) -> int | None:
        """The number of steps after which the network was best; None before the first epoch ended."""
        return min(self._losses, key=lambda step: (self._losses[step], step), default=None)

    def is_over(self, step: int) -> bool:
        """Whether the last epochs up to a step were no better than one before them."""
        best = self.best_step
        return best is not None and sum(best < one <= step for one in self._losses) >= self._patience

    def measure(self, step: int) -> None:
        """Measure the network after so many steps, and keep it if it is the best.

        Raises:
            UserError: the disk is full or not writable.
        """
        mode = self._student.training
        self._student.eval()
        (loss,) = self._team.agreed(self._examples.measured(self._student).loss)
        self._student.train(mode)
        self._losses[step] = loss if math.isfinite(loss) else math.inf
        if self.best_step == step:
            self._best = {name: self._team.whole(tensor).clone() for name, tensor in self._tensors.items()}
        if self._folder is not None and not self._team.rank:
            self._write(self._folder, self.best_step == step)

    @torch.no_grad()
    def put_best(self) -> None:
        """Put the weights of the best epoch into the network."""
        for name, tensor in self._best.items():
            self._tensors[name].copy_(tensor)

    def _write(self, folder: Path, best: bool) -> None:
        own_folder(folder)
        try:
            if best:
                with replacing(folder / BEST) as new:
                    save_file({name: tensor.contiguous() for name, tensor in self._best.items()}, new)
        except (OSError, SafetensorError) as error:
            raise UserError(f"the best network could not be written to '{folder}' ({error}).") from error
        losses = {str(step): loss if math.isfinite(loss) else None for step, loss in self._losses.items()}
        write_atomically(folder / LOSSES, to_json(losses) + "\n")
