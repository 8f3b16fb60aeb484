"""One side of `parity.py`, and no benchmark itself: searches with whatever autoprune PYTHONPATH leads to.

Reads a search from every line of stdin, as a JSON object, and answers with one on stdout. It uses only what every
version has: `search`, `resume`, `finetune` and the files of a run.
"""

import json
import os
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import autoprune
from autoprune.agents.evolution import Evolution
from autoprune.config import SearchConfig

SECONDS = "PARITY_SECONDS"
AS_FOUND: dict[str, Any] = {"refit": False} if "refit" in SearchConfig.model_fields else {}
"""Sides that refit what was found are compared without it, because earlier ones did not."""


@dataclass(frozen=True)
class Timed(Evolution):
    """Evolution that appends the processor seconds of its search to a file."""

    def search(self, objective: Any, rng: Any) -> None:
        """Evolution's own."""
        begun = time.process_time()
        try:
            super().search(objective, rng)
        finally:
            with open(os.environ[SECONDS], "a", encoding="utf-8") as file:
                file.write(f"{time.process_time() - begun}\n")


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        begun = time.perf_counter()
        try:
            answer = searched(json.loads(line))
        except BaseException as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        answer["wall"] = time.perf_counter() - begun
        os.write(answers, (json.dumps(answer) + "\n").encode())


def searched(asked: dict[str, Any]) -> dict[str, Any]:
    """What a search left: its directory, losses after fine-tuning, and digests of the networks that it wrote."""
    out, settings = Path(asked["out"]), asked["settings"]
    if asked.get("latencies"):  # a run's own latencies are read when it is resumed
        import yaml

        out.mkdir(parents=True)
        (out / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        (out / "latency.json").write_text(Path(asked["latencies"]).read_text(encoding="utf-8"), encoding="utf-8")
        result = autoprune.resume(out)
    else:
        result = autoprune.search(**AS_FOUND | settings, out=out)
    answer: dict[str, Any] = {"run": str(out), "export": None, "finetune": None, "trained": None}
    if asked.get("export"):
        result.export(out / "export", to=asked["export"])
        answer["export"] = str(out / "export")
    if asked.get("finetune"):
        recovered = autoprune.finetune(out, **asked["finetune"])
        answer["finetune"], answer["trained"] = asdict(recovered.after), str(recovered.path)
    return answer


def tensors(folder: str) -> dict[str, torch.Tensor]:
    """The weights of an export, by name."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        found |= load_file(file)
    return found


if __name__ == "__main__":
    main()
