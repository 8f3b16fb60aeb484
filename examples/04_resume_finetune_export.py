"""A search is killed and goes on; then the policy is fine-tuned, and the better network is measured.

    python examples/04_resume_finetune_export.py [RUN]

The search runs in a process of its own, which is killed as soon as it has written some scores. `resume` replays the
scores that the journal has and goes on: it ends as a search that nobody killed. `finetune` refits the network, trains
it with the dense one as its teacher, and hands over the best of the three: as found, refitted or trained. The command
line does the same: `autoprune search --model tiny-cnn --budget macs=0.4 --out RUN`, Ctrl-C or a kill,
`autoprune resume RUN`, `autoprune finetune RUN --epochs 10`, `autoprune export RUN DIR`.

Expect, in about half a minute, the number of scores at the kill and at the end, the accuracies before and after
fine-tuning, and where the two networks are.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import autoprune

parser = argparse.ArgumentParser()
parser.add_argument("run", nargs="?", type=Path, help="the run's directory, which must not exist")
parser.add_argument("--tokens", type=int, default=100_000, help="policies x images scored")
parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning")
arguments = parser.parse_args()

run = arguments.run or Path(tempfile.mkdtemp()) / "run"
journal = run / "journal.jsonl"


def scores() -> int:
    """Scores that the journal has so far."""
    return len(journal.read_text(encoding="utf-8").splitlines()) if journal.exists() else 0


command = [
    sys.executable, "-m", "autoprune", "search", "--model", "tiny-cnn", "--budget", "macs=0.4",
    "--max-tokens", str(arguments.tokens), "--out", str(run),
]  # fmt: skip
search = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while search.poll() is None and scores() < 10:
    time.sleep(0.01)
search.kill()
search.wait()
print(f"killed after {scores()} lines of the journal")

result = autoprune.resume(run)
print(f"resumed: {scores()} lines, loss {result.loss:.4f}")

tuned = autoprune.finetune(run, epochs=arguments.epochs)
print(f"accuracy {tuned.before.accuracy:.1%} as found, {tuned.after.accuracy:.1%} in the end ({tuned.chosen})")
print(f"as found: {result.export(run / 'smaller')}")
print(f"fine-tuned: {tuned.path}")
