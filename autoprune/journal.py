"""The journal of a search. Every score is appended as one JSON line; a resumed search replays them.

A score is the line `{"levels": [...], "sequences": [...], "losses": [...], "seconds": s}`.

- For a mask, `"mask": "<hexadecimal>"` replaces the levels (`autoprune/mask.py`).
- A policy that could not be scored also has `"failed": "<why>"`.
- A network that was trained before it was scored also has `"steps": <training steps>`.
- A line with `"slopes"` holds slopes around a policy (evaluation/slopes.py): a table of units x levels; null is
  unknown.
- A line `{"ended": n, "seconds": s}` says that time was over at the n-th look at the clock (`Objective.look_at_clock`).

Losses are written so that they read back to the same float. An infinite loss (a network that overflows) is null.

The first line names the format and what was scored. Scores of another network, text or space are never replayed. An
incomplete last line, which a killed process leaves, is dropped.
"""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.errors import UserError
from autoprune.files.reading import DAMAGE, parse_json, read_bytes, read_head
from autoprune.files.writing import open_unlinked
from autoprune.mask import Mask
from autoprune.space import Proposal

FILE = "journal.jsonl"  # of a run
HEADER: dict[str, object] = {"autoprune_journal": 1}
BYTES = 2**33  # of a file, at most


@dataclass(frozen=True)
class Score:
    """Losses of one proposal on some sequences.

    Args:
        proposal: what was scored.
        sequences: their numbers in the search split.
        losses: one a sequence.
        seconds: seconds of search until then.
        failed: why it could not be scored; None if it was scored.
        steps: training steps that its network had taken before it was scored.
        passes: forward passes that were charged for those of the steps that were new.
    """

    proposal: Proposal
    sequences: tuple[int, ...]
    losses: list[float]
    seconds: float
    failed: str | None = None
    steps: int = 0
    passes: int = 0


@dataclass(frozen=True)
class Estimate:
    """Slopes around a policy on some sequences, `[U][L]`, NaN where unknown, and the seconds of search until then."""

    proposal: Proposal
    sequences: tuple[int, ...]
    slopes: list[list[float]]
    seconds: float


@dataclass(frozen=True)
class End:
    """The number of the look at the clock at which time was over, from 1, and the seconds of search until then."""

    look: int
    seconds: float


class Replay:
    """Scores and slopes of the interrupted search, each returned once, and where it ended, if the journal says so."""

    def __init__(self, scores: Sequence[Score], estimates: Sequence[Estimate] = (), end: End | None = None) -> None:
        self.end = end
        self._scores = {(score.proposal, score.sequences, score.steps): score for score in scores}
        self._estimates = {(one.proposal, one.sequences): one for one in estimates}

    def take(self, proposal: Proposal, sequences: Sequence[int], steps: int = 0) -> Score | None:
        """The score of exactly this request, if it was journalled."""
        return self._scores.pop((proposal, tuple(sequences), steps), None)

    def take_estimate(self, proposal: Proposal, sequences: Sequence[int]) -> Estimate | None:
        """The slopes of exactly this request, if they were journalled."""
        return self._estimates.pop((proposal, tuple(sequences)), None)

    def __len__(self) -> int:
        return len(self._scores) + len(self._estimates)


class Journal:
    """An append-only file of scores.

    Args:
        path: the file, or None to keep nothing.
        subject: a name for what is scored. A file with another subject is refused.

    Attributes:
        scores: all that the file holds, in order.
        estimates: likewise.
        end: where the interrupted search ended; None if the journal does not say.
        id: a name for the run that is unique among runs. It stands in the file's first line.

    Raises:
        UserError: the file is not a journal, is of another subject, is damaged in the middle, or cannot be written.
    """

    def __init__(self, path: Path | None, subject: str = "") -> None:
        self.path, self.subject, self.id = path, subject, uuid.uuid4().hex[:12]
        self.scores: list[Score] = []
        self.estimates: list[Estimate] = []
        self.end: End | None = None
        if path is None:
            return
        try:
            if path.exists() and path.stat().st_size:
                self._read(path)
            self._file = open_unlinked(path, "a")
        except OSError as error:
            raise UserError(f"the journal '{path}' cannot be opened ({error.strerror}).") from error
        except ValueError as error:
            raise UserError(f"the journal '{path}' cannot be read: {error}.") from error
        if self._file.tell() == 0:
            self._write(json.dumps(HEADER | {"subject": self.subject, "id": self.id}) + "\n")

    @classmethod
    def in_memory(cls) -> "Journal":
        """A journal without a file."""
        return cls(None)

    def replay(self) -> Replay:
        """Its present content."""
        return Replay(self.scores, self.estimates, self.end)

    def append(self, scores: Sequence[Score]) -> None:
        """Write scores and hand them to the operating system, which keeps them if this process is killed."""
        if self.path is not None:
            self._write("".join(_encode(score) + "\n" for score in scores))
            self.scores.extend(scores)

    def append_estimate(self, estimate: Estimate) -> None:
        """Write slopes, as `append` does scores."""
        if self.path is not None:
            rows = [[None if math.isnan(change) else change for change in row] for row in estimate.slopes]
            record = {"levels": estimate.proposal, "sequences": estimate.sequences, "slopes": rows}
            self._write(json.dumps(record | {"seconds": estimate.seconds}, separators=(",", ":")) + "\n")
            self.estimates.append(estimate)

    def append_end(self, end: End) -> None:
        """Write where the search ended, as `append` does scores."""
        if self.path is not None and self.end != end:
            self._write(json.dumps({"ended": end.look, "seconds": end.seconds}, separators=(",", ":")) + "\n")
            self.end = end

    def close(self) -> None:
        """Close the file."""
        if self.path is not None:
            self._file.close()

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            with suppress(OSError):  # closing tries to write what is left once more
                self._file.close()
            raise UserError(
                f"the journal '{self.path}' could not be written ({error.strerror}). What was written before is "
                "kept: make room and `autoprune resume` the run."
            ) from error

    def _check_header(self, header: dict[str, object]) -> None:
        if not HEADER.items() <= header.items():
            raise ValueError("no journal, or one of another version")
        _check_subject(self.path, header, self.subject)
        self.id = str(header.get("id", self.id))

    def _read(self, path: Path) -> None:
        raw = read_bytes(path, BYTES)
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.decode("utf-8", "replace").splitlines(), 1):
            try:
                data = parse_json(line)
                if number == 1:
                    self._check_header(data)
                elif "slopes" in data:
                    self.estimates.append(decode_estimate(data))
                elif "ended" in data:
                    self.end = decode_end(data)
                else:
                    self.scores.append(decode(data))
            except DAMAGE as error:
                raise UserError(
                    f"line {number} of the journal '{path}' is damaged: restore the file, or delete that line and "
                    "those after it to resume from there."
                ) from error


def check_journal(path: Path, subject: str) -> None:
    """Raise a UserError unless the journal of a search has this subject. Only the first line is read."""
    try:
        header = parse_json(read_head(path, 4096).partition(b"\n")[0].decode("utf-8", "replace"))
        _check_subject(path, dict(header), subject)
    except (OSError, *DAMAGE) as error:
        raise UserError(f"the journal '{path}' cannot be read ({error}): remove the run to search again.") from error


def _check_subject(path: Path | None, header: Mapping[str, object], now: str) -> None:
    there = header.get("subject", "")
    if there != now:
        raise UserError(
            f"the journal '{path}' is of another network, text, space or loss ({there}) than there is now ({now}), or "
            "was written by an earlier version of autoprune, whose levels were others: put back what has changed, or "
            "start a new run."
        )


def decode_estimate(data: dict[str, Any]) -> Estimate:
    """As `decode`, of a line with slopes."""
    rows = [[math.nan if change is None else float(change) for change in row] for row in _list(data, "slopes")]
    proposal = tuple(int(level) for level in _list(data, "levels"))
    if len(rows) != len(proposal):
        raise ValueError("slopes and levels differ in number")
    return Estimate(proposal, tuple(int(s) for s in _list(data, "sequences")), rows, float(data["seconds"]))


def _list(data: dict[str, Any], key: str) -> list[Any]:
    """What a line has of that name; a text would pass for a list of its letters."""
    if not isinstance(data[key], list):
        raise TypeError(f"{key} is no list")
    found: list[Any] = data[key]
    return found


def decode_end(data: dict[str, Any]) -> End:
    """As `decode`, of a line that says where the search ended."""
    return End(int(data["ended"]), float(data["seconds"]))


def _encode(score: Score) -> str:
    losses = [loss if math.isfinite(loss) else None for loss in score.losses]
    record: dict[str, Any]
    record = {"mask": score.proposal.bits.hex()} if isinstance(score.proposal, Mask) else {"levels": score.proposal}
    record |= {"sequences": score.sequences, "losses": losses, "seconds": score.seconds}
    if score.failed is not None:
        record["failed"] = score.failed
    if score.steps:
        record["steps"] = score.steps
    if score.passes:
        record["passes"] = score.passes
    return json.dumps(record, separators=(",", ":"))


def decode(data: dict[str, Any]) -> Score:
    """A line of the file, read as JSON; raises KeyError, TypeError or ValueError for what is none."""
    losses = [math.inf if loss is None else float(loss) for loss in _list(data, "losses")]
    proposal = decode_proposal(data)
    sequences = tuple(int(s) for s in _list(data, "sequences"))
    if len(losses) != len(sequences):
        raise ValueError("losses and sequences differ in number")
    failed, steps = None if data.get("failed") is None else str(data["failed"]), data.get("steps", 0)
    if type(steps) is not int or steps < 0:
        raise ValueError(f"{steps!r} training steps")
    passes = data.get("passes", 0)
    if type(passes) is not int or passes < 0:
        raise ValueError(f"{passes!r} forward passes of training")
    return Score(proposal, sequences, losses, float(data["seconds"]), failed, steps, passes)


def decode_proposal(data: dict[str, Any]) -> Proposal:
    """The levels or the mask in a record; raises as `decode`."""
    if "mask" in data:
        return Mask(bytes.fromhex(data["mask"]))
    return tuple(int(level) for level in _list(data, "levels"))
