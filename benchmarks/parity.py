"""Whether another version finds the same: searches with the code of a commit and with this one, side by side.

    python benchmarks/parity.py --against COMMIT --json [--only NAME] [--tolerance 1e-6]
    python benchmarks/parity.py --against COMMIT --cost [--repeats 5] [--json]

Both sides run on this machine with the same Python, each in a process and with a cache of its own. The benchmark
compares the journals (policies, sequences, losses, slopes, in order), the policies with their costs and validation
losses, and the weights of exports and of fine-tuned networks. Numbers must agree to the bit, or within `--tolerance`,
relative. The code of the commit is taken with `git archive`; what is compared with it is the working tree.

A fault that was mended after COMMIT changes results. `parity_searches.py` names these changes, and says which searches
they touch: such a row is `excused` if it differs. `equal` is true when every row that is not excused is equal.

`--cost` measures something else: processor seconds of one search with evolution, new over old, interleaved.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parity_searches import CHANGES, SEARCHES, Search, embedded, prepare, text
from parity_side import SECONDS, tensors

HERE = Path(__file__).resolve().parent
SMALL = 0.01
"""Smaller numbers are compared as if they were this large: the dense network's divergence from itself is noise."""


@dataclass
class Row:
    """What the comparison of one search says.

    Args:
        name: of the search.
        equal: everything agrees.
        scores: lines of the new journal.
        difference: the largest relative one of losses and weights.
        differs: the first thing that does not agree, in words.
        changes: names of CHANGES that are newer than the commit and touch the search.
        seconds: of the old and of the new side.
    """

    name: str
    equal: bool
    scores: int = 0
    difference: float = 0.0
    differs: str = ""
    changes: list[str] = field(default_factory=list)
    seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def excused(self) -> bool:
        """Whether it differs and a change that is known says why."""
        return not self.equal and bool(self.changes)


class Side:
    """A process that searches with one version of the code."""

    def __init__(self, code: Path, folder: Path, inputs: Path) -> None:
        folder.mkdir()
        self.folder, self.seconds = folder, folder / "seconds"
        own = {
            "PYTHONPATH": str(code), "AUTOPRUNE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1", SECONDS: str(self.seconds),
        }  # fmt: skip
        self._inputs, self._count, log = inputs, 0, (folder / "log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "parity_side.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | own, cwd=folder,
        )  # fmt: skip

    def run(self, search: Search) -> dict[str, Any]:
        """What it left (parity_side.py)."""
        self._count += 1
        asked = {
            "out": str(self.folder / f"run{self._count}"), "settings": search.settings(self._inputs),
            "export": search.export, "finetune": dict(search.finetune),
            "latencies": str(self._inputs / "latency.json") if search.latencies else None,
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit((self.folder / "log").read_text(encoding="utf-8")[-4000:] + "\nerror: a side has died.")
        told: dict[str, Any] = json.loads(answer)
        return told

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        inputs, code = Path(scratch) / "inputs", Path(scratch) / "code"
        inputs.mkdir()
        commit = checked_out(args.against, code)
        prepare(inputs)
        sides = Side(code, Path(scratch) / "old", inputs), Side(HERE.parent, Path(scratch) / "new", inputs)
        try:
            report = {"against": commit} | (cost(args, *sides) if args.cost else rows(args, *sides))
        finally:
            for side in sides:
                side.close()
    if args.json:
        print(json.dumps(report))
    sys.exit(0 if report["equal"] else 1)


def checked_out(commit: str, code: Path) -> str:
    """Write the files of a commit to a new folder; its full name."""
    code.mkdir()
    try:
        full = _git("rev-parse", "--verify", f"{commit}^{{commit}}").strip()
    except subprocess.CalledProcessError:
        sys.exit(f"error: --against '{commit}' is no commit of this repository.")
    archive = subprocess.run(["git", "archive", full], cwd=HERE.parent, check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(code)], input=archive.stdout, check=True)
    return full


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=HERE.parent, check=True, capture_output=True, text=True)
    return done.stdout


def is_newer(change: str, commit: str) -> bool:
    """Whether the commit does not have a change yet."""
    asked = ["git", "merge-base", "--is-ancestor", CHANGES[change].commit, commit]
    return subprocess.run(asked, cwd=HERE.parent, capture_output=True).returncode != 0


# -- searches --------------------------------------------------------------------------------------------------------


def rows(args: argparse.Namespace, old: Side, new: Side) -> dict[str, Any]:
    """Every search on both sides."""
    found = []
    print(f"{'search':24s}{'scores':>7s}{'difference':>12s}{'old s':>7s}{'new s':>7s}  result")
    for name in args.only or SEARCHES:
        row = compared(name, args, old, new)
        result = "equal" if row.equal else f"{'excused' if row.excused else 'DIFFERS'}: {row.differs}"
        because = f" ({', '.join(row.changes)})" if row.excused else ""
        seconds = f"{row.seconds[0]:7.1f}{row.seconds[1]:7.1f}"
        print(f"{name:24s}{row.scores:7d}{row.difference:12.1e}{seconds}  {result}{because}", flush=True)
        found.append(row)
    told = sorted({change for row in found for change in row.changes if row.excused})
    for change in told:
        print(f"  {change}: {CHANGES[change].reason} (before {CHANGES[change].commit})")
    return {
        "equal": all(row.equal or row.excused for row in found),
        "rows": [asdict(row) | {"excused": row.excused} for row in found],
        "excused": [row.name for row in found if row.excused],
        "changes": {change: CHANGES[change].reason for change in told},
    }


def compared(name: str, args: argparse.Namespace, old: Side, new: Side) -> Row:
    """One search on both sides at once, and what differs."""
    search = SEARCHES[name]
    with ThreadPoolExecutor(2) as pool:
        a, b = pool.map(lambda side: side.run(search), (old, new))
    changes = [change for change in search.touches if is_newer(change, args.against)]
    row = Row(name, True, changes=changes, seconds=(a["wall"], b["wall"]))
    errors = [f"{side}: {told['error']}" for side, told in (("old", a), ("new", b)) if "error" in told]
    if errors:
        row.equal, row.differs = False, "; ".join(errors)
        return row
    row.scores = len(journal(Path(b["run"])))
    try:
        Comparison(row, args.tolerance).runs(a, b)
    except DifferenceError as difference:
        row.equal, row.differs = False, str(difference)
    return row


# -- comparing -------------------------------------------------------------------------------------------------------


class DifferenceError(Exception):
    """The first thing that does not agree."""


@dataclass
class Comparison:
    """Compares what two sides left, and keeps the largest difference of numbers in the row."""

    row: Row
    tolerance: float

    def runs(self, a: dict[str, Any], b: dict[str, Any]) -> None:
        """Journals, policies, exports and fine-tuned networks.

        Raises:
            DifferenceError: something does not agree.
        """
        self.journals(journal(Path(a["run"])), journal(Path(b["run"])))
        self.policies(*(json.loads((Path(one["run"]) / "policy.json").read_text("utf-8")) for one in (a, b)))
        for kind in ("export", "trained"):
            if a[kind]:
                self.weights(tensors(a[kind]), tensors(b[kind]), kind)
        for key in sorted({*(a["finetune"] or {})} & {*(b["finetune"] or {})}):
            self.numbers([a["finetune"][key]], [b["finetune"][key]], f"{key} after fine-tuning")

    def journals(self, old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> None:
        """What was asked must be the same, line by line, and losses or slopes must agree."""
        for number, (a, b) in enumerate(zip(old, new, strict=False), 2):
            for key in ("levels", "mask", "sequences"):
                if a.get(key) != b.get(key):
                    raise DifferenceError(f"{key} in line {number} of the journals")
            self.numbers(a.get("losses"), b.get("losses"), f"losses in line {number} of the journals")
            self.numbers(_flat(a.get("slopes")), _flat(b.get("slopes")), f"slopes in line {number} of the journals")
        if len(old) != len(new):
            raise DifferenceError(f"{len(old)} scores, and {len(new)} now")

    def policies(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        """The groups that are kept, costs, losses."""
        if kept(old) != kept(new):
            raise DifferenceError("the policy")
        if old["costs"].keys() != new["costs"].keys():
            raise DifferenceError("the metrics of the policy")
        for metric, cost in old["costs"].items():
            now = new["costs"][metric]
            keys = ("dense", "policy", "budget")
            self.numbers([cost[key] for key in keys], [now[key] for key in keys], f"costs in {metric}")
        self.numbers([old["losses"]["search"]], [new["losses"]["search"]], "the policy's search loss")
        for name, losses in old["losses"]["validation"].items():
            now = new["losses"]["validation"][name]
            self.numbers([losses[key] for key in losses], [now.get(key) for key in losses], f"validation of {name}")

    def weights(self, old: dict[str, Any], new: dict[str, Any], what: str) -> None:
        """Tensors by name."""
        if old.keys() != new.keys():
            raise DifferenceError(f"names of weights ({what})")
        for name, a in old.items():
            b = new[name]
            if a.shape != b.shape or a.dtype != b.dtype:
                raise DifferenceError(f"shape or dtype of {name} ({what})")
            scale = max(a.double().abs().max().item() if a.numel() else 0.0, 1e-30)
            largest = (a.double() - b.double()).abs().max().item() / scale if a.numel() else 0.0
            self._within(largest, f"{name} ({what})")

    def numbers(self, old: Sequence[float | None] | None, new: Sequence[float | None] | None, what: str) -> None:
        """Lists of numbers, of which some may be none."""
        if old is None and new is None:
            return
        if old is None or new is None or len(old) != len(new):
            raise DifferenceError(what)
        for a, b in zip(old, new, strict=True):
            if a is None or b is None or not math.isfinite(a) or not math.isfinite(b):
                if a is not b and a != b:
                    raise DifferenceError(what)
            elif a != b:
                self._within(abs(a - b) / max(abs(a), abs(b), SMALL), what)

    def _within(self, difference: float, what: str) -> None:
        self.row.difference = max(self.row.difference, difference)
        if difference > self.tolerance:
            raise DifferenceError(what)


def journal(run: Path) -> list[dict[str, Any]]:
    """Scores and slopes in order; the header and the end of the time are no results."""
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    return [line for line in lines if "ended" not in line]


def kept(policy: dict[str, Any]) -> list[tuple[str, str]]:
    """What is kept of every unit, whatever the version of the policy's file."""
    return [(unit["name"], unit["kept_groups"]) for unit in policy["units"]]


def _flat(table: list[list[float | None]] | None) -> list[float | None] | None:
    return None if table is None else [value for row in table for value in row]


# -- the cost of a candidate -----------------------------------------------------------------------------------------


def cost(args: argparse.Namespace, old: Side, new: Side) -> dict[str, Any]:
    """Processor seconds of the same search, new over old."""
    limits = {"max_evals": None, "max_tokens": args.tokens, "search_sequences": 32, "sequence_length": 128}
    common = {"budgets": {"params": 0.6}, "agent_options": {"slope_sequences": args.slopes}, **limits}
    timed = f"{HERE / 'parity_side.py'}:Timed"
    made = text("llama", timed, **common) if is_newer("heads", args.against) else embedded(timed, **common)
    search = Search(made)
    old.run(search), new.run(search)  # level stores are built, and memory is taken
    for number in range(args.repeats):
        for side in (old, new) if number % 2 == 0 else (new, old):
            answer = side.run(search)
            if "error" in answer:
                sys.exit(f"error: {answer['error']}")
    a, b = ([float(line) for line in side.seconds.read_text(encoding="utf-8").split()][1:] for side in (old, new))
    pairs = sorted(y / x for x, y in zip(a, b, strict=True))
    ratio = sum(b) / sum(a)
    print(f"processor seconds of {args.repeats} searches: {sum(a):.2f} before, {sum(b):.2f} now")
    print(f"ratio {ratio:.3f}, of single pairs {pairs[0]:.3f} to {pairs[-1]:.3f}, median {pairs[len(pairs) // 2]:.3f}")
    return {"equal": True, "rows": [], "cost": {"ratio": ratio, "pairs": pairs, "old": a, "new": b}}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the version to compare with")
    parser.add_argument("--only", action="append", choices=sorted(SEARCHES), help="one search; may be repeated")
    parser.add_argument("--tolerance", type=float, default=0.0, help="relative, of losses and weights; 0 is to the bit")
    parser.add_argument("--cost", action="store_true", help="measure what a candidate costs, and compare nothing")
    parser.add_argument("--repeats", type=int, default=5, help="searches of each side, for --cost")
    parser.add_argument("--tokens", type=int, default=60_000, help="limit of each search, for --cost")
    parser.add_argument("--slopes", type=int, default=1, help="sequences of the slopes, for --cost")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
