"""One search from end to end: size, speed and perplexity of what is exported, and the search's peak memory.

    python benchmarks/export.py --model DIR --data FILE --test FILE [--tokens 400000] [--json]

Every step is the command line in a process of its own, as a user runs it. Perplexities are on the same sequences of
FILE: of the dense directory, of the run (the evaluator's own number) and of both exports.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, native, padded = (str(Path(folder) / name) for name in ("run", "native", "padded"))
        os.environ["AUTOPRUNE_CACHE"] = str(Path(folder) / "cache")
        settings = ["--model", args.model, "--data", args.data, "--max-tokens", str(args.tokens), "--out", run]
        searched = autoprune("search", *settings)
        peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        autoprune("export", run, native)
        autoprune("export", run, padded, "--uniform")
        rows = {
            name: autoprune("evaluate", path, "--data", args.test, "--max-sequences", "64")
            for name, path in {"dense": args.model, "evaluator": run, "hf": native, "hf --uniform": padded}.items()
        }
        store_bytes = sum(file.stat().st_size for file in Path(folder, "cache").rglob("*.safetensors"))
    weights_bytes = 4 * rows["dense"]["params"]  # float32 in memory
    dense = rows["dense"]
    print(f"{'':14s} {'CE':>9s} {'perplexity':>11s} {'params':>11s} {'MB':>7s} {'tokens/s':>9s} {'speed-up':>9s}")
    for name, row in rows.items():
        size = f"{row['bytes'] / 1e6:7.1f}" if "bytes" in row else "       "
        speed = row["tokens_per_second"]
        print(
            f"{name:14s} {row['cross_entropy']:9.5f} {row['perplexity']:11.3f} {row['params']:11,d} {size} "
            f"{speed:9.0f} {speed / dense['tokens_per_second']:9.2f}"
        )
    gap = max(abs(rows[name]["cross_entropy"] - rows["evaluator"]["cross_entropy"]) for name in ("hf", "hf --uniform"))
    beyond = (peak_bytes - weights_bytes - store_bytes) / 2**30
    print(f"\nexports against the evaluator: {gap:.1e} nats")
    print(
        f"search: peak RSS {peak_bytes / 2**20:.0f} MiB = weights {weights_bytes / 2**20:.0f} + store "
        f"{store_bytes / 2**20:.0f} MiB + {beyond:.2f} GiB; {searched['spent']['seconds']:.0f} s of search"
    )
    if args.json:
        memory = {"peak_bytes": peak_bytes, "weights_bytes": weights_bytes, "store_bytes": store_bytes}
        print(json.dumps({"rows": rows, "gap_nats": gap, **memory, "search": searched}))


def autoprune(*arguments: str) -> dict[str, Any]:
    """One command in a fresh process, its JSON."""
    command = [sys.executable, "-m", "autoprune", *arguments, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()
