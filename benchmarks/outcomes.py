"""Outcomes of compare_agents.py, and no benchmark itself: the file that keeps them, and the table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import difference, mean_sd
from curves import Point

from autoprune.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """One search: what it spent and how its answer does, nats per token.

    Args:
        levels: of its answer; of a mask, the groups kept of each unit.
        curve: losses of its incumbents on the whole search split; the last point is where it ended.
        history: (tokens, seconds, best loss) after every batch, on whatever sample the agent took.
    """

    agent: str
    seed: int
    search_kl: float
    test_kl: float
    test_ce: float
    tokens: int
    evals: int
    seconds: float
    levels: tuple[int, ...]
    curve: Sequence[Point]
    history: Sequence[Point]

    def __str__(self) -> str:
        return (
            f"{self.agent} seed {self.seed}: search KL {self.search_kl:.4f}, test KL {self.test_kl:.4f}, "
            f"{self.tokens} tokens, {self.evals} evaluations, {self.seconds:.1f} s"
        )


class Record:
    """Outcomes in a file of JSON lines, appended as they come; the first line says what they are outcomes of.

    Args:
        path: the file; None keeps nothing.
        subject: what they must be of; None takes what is there.

    Raises:
        UserError: it is of something else, or damaged.
    """

    def __init__(self, path: Path | None, subject: Mapping[str, Any] | None) -> None:
        self._path, self.outcomes = path, list[Outcome]()
        self.subject: dict[str, Any] = json.loads(json.dumps(subject or {}))
        if path is not None and path.exists() and path.stat().st_size:
            self._read(path, check=subject is not None)
        elif subject is None:
            raise UserError(f"--report-only: there are no outcomes in '{path}'.")
        elif path is not None:
            path.write_text(json.dumps(self.subject) + "\n", encoding="utf-8")

    def append(self, outcome: Outcome) -> None:
        """Add one, on disk at once."""
        self.outcomes.append(outcome)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")

    def _read(self, path: Path, check: bool) -> None:
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):  # the process was killed while it wrote
            path.write_bytes(whole)
        try:
            subject, *rows = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
            self.outcomes = [Outcome(**row | {"levels": tuple(row["levels"])}) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"'{path}' holds no outcomes of this benchmark ({error}).") from error
        same = (subject.keys() | self.subject.keys()) - {"dense_test_ce"}  # its last digits are the machine's
        for key in sorted(same) if check else ():
            if subject.get(key) != self.subject.get(key):
                raise UserError(
                    f"'{path}' has outcomes with {key}={subject.get(key)}, and asked for is {self.subject.get(key)}: "
                    "give another file."
                )
        self.subject = subject


def rows_of(outcomes: Sequence[Outcome], against: str) -> dict[str, dict[str, Any]]:
    """For each agent: mean and standard deviation of every number, and its difference to `against` with its error."""
    rows: dict[str, dict[str, Any]] = {}
    by_agent = {agent: [o for o in outcomes if o.agent == agent] for agent in dict.fromkeys(o.agent for o in outcomes)}
    for agent, mine in by_agent.items():
        rows[agent] = {"seeds": len(mine)}
        for field in ("search_kl", "test_kl", "test_ce", "tokens", "evals", "seconds"):
            rows[agent][field] = mean_sd([float(getattr(o, field)) for o in mine])
        for field in ("search_kl", "test_kl") if against in by_agent and agent != against else ():
            theirs = [float(getattr(o, field)) for o in by_agent[against]]
            rows[agent][f"{field}_difference"] = difference([float(getattr(o, field)) for o in mine], theirs)
    return rows


def print_table(rows: Mapping[str, Mapping[str, Any]], against: str) -> None:
    """Means ± standard deviations over seeds; differences ± standard errors."""
    wide = max(12, *(len(agent) for agent in rows))
    heads = " ".join(f"{name:>17s}" for name in ("search KL", "test KL", "test CE"))
    named = ("search KL", "test KL") if against in rows else ()
    gaps = " ".join(f"{f'{name} - {against} ± se':>27s}" for name in named)
    print(f"{'agent':{wide}s} {'n':>2s} {heads} {'tokens':>9s} {'evals':>6s} {'s':>6s}   {gaps}".rstrip())
    for agent, row in rows.items():
        losses = " ".join(f"{row[f][0]:8.4f} ± {row[f][1]:6.4f}" for f in ("search_kl", "test_kl", "test_ce"))
        spent = f"{row['tokens'][0]:9.0f} {row['evals'][0]:6.0f} {row['seconds'][0]:6.1f}"
        pairs = [row.get(f"{field}_difference") for field in ("search_kl", "test_kl")]
        gaps = " ".join(f"{'' if pair is None else f'{pair[0]:+.4f} ± {pair[1]:.4f}':>27s}" for pair in pairs)
        print(f"{agent:{wide}s} {row['seeds']:2d} {losses} {spent}   {gaps}".rstrip())
