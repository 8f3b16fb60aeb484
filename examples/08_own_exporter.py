"""An exporter of one's own: the weights of the pruned network as one file of NumPy arrays.

    python examples/08_own_exporter.py [FILE]

searches for a few seconds and writes FILE, by default `half.npz`. The command line does the same with a run of yours:
`autoprune export RUN half.npz --to examples/08_own_exporter.py:NumpyArrays dtype=float16`.

What is written is decided here alone: the engine loads the network, checks the options (`dtype=float8` is refused, and
`dtpye=float16` gets a hint) and hands over a source with the policy and the network.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import autoprune
from autoprune.errors import UserError
from autoprune.exporters.source import Source
from autoprune.ports import Exporter


@dataclass
class NumpyArrays(Exporter):
    """Weights as NumPy arrays.

    Args:
        dtype: of the arrays.
    """

    dtype: Literal["float16", "float32"] = "float32"

    stage = "writing arrays"

    def check(self, path: Path) -> None:
        """Called before the network is loaded."""
        if path.suffix != ".npz":
            raise UserError(f"'{path}' is to be a .npz file.")

    def write(self, source: Source, path: Path) -> None:
        """Write the file."""
        with source.pruned() as network:  # the dense network again when this ends
            arrays = {
                name: tensor.float().cpu().numpy().astype(self.dtype) for name, tensor in network.state_dict().items()
            }
        np.savez(path, **arrays)


def main() -> None:
    """Search, export, and count what was written."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", type=Path, default=Path("half.npz"), help="where the arrays are written")
    parser.add_argument("--tokens", type=int, default=20_000, help="policies x tokens scored")
    arguments = parser.parse_args()
    result = autoprune.search(
        budgets={"params": 0.5}, max_tokens=arguments.tokens, out=Path(tempfile.mkdtemp()) / "run",
        sequence_length=128, reconstruction_sequences=64, search_sequences=32, validation_sequences=32,
    )  # fmt: skip
    result.export(arguments.file, f"{__file__}:NumpyArrays", dtype="float16")
    with np.load(arguments.file) as arrays:
        print(f"{arguments.file}: {sum(array.size for array in arrays.values()):,} numbers in {len(arrays)} arrays")


if __name__ == "__main__":  # the export imports this file to find the exporter
    main()
