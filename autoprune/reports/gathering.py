"""The scores of a journal, gathered line by line, so that a journal that grows is read once."""

import math

from autoprune import journal
from autoprune.files.reading import parse_json
from autoprune.reports.record import Best, Scored, Spent
from autoprune.space import Proposal, SearchSpace

SLOPE_PASSES = 8
"""Forward passes that the slopes of a sequence are charged as (evaluation/slopes.py)."""


class Gathering:
    """What is known of the policies in a journal.

    Args:
        space: of the run.
        sequence_length: tokens of a sequence.

    Attributes:
        records: what was scored of each policy, in the order of its first score.
        history: (tokens, seconds, loss of the best so far on its own sample) after every score.
        failed: the number of scores that failed.
    """

    def __init__(self, space: SearchSpace, sequence_length: int) -> None:
        self.records: dict[Proposal, Scored] = {}
        self.history: list[tuple[int, float, float]] = []
        self.failed = 0
        self._space, self._length, self._lines = space, sequence_length, 0
        self._evals, self._tokens, self._seconds, self._training = 0, 0, 0.0, 0
        self._leader: Proposal | None = None

    @property
    def spent(self) -> Spent:
        """Evaluations, tokens and seconds so far; training steps are left out."""
        return Spent(evals=self._evals, tokens=self._tokens, seconds=self._seconds, training=self._training)

    @property
    def best(self) -> Best | None:
        """The policy of the lowest loss at the highest fidelity, as the objective chooses without a declared answer."""
        proposal = self._leader
        if proposal is None or not math.isfinite(
            self.records[proposal].loss
        ):  # it overflowed when it was scored on more
            finite = [p for p, one in self.records.items() if one.feasible and math.isfinite(one.loss)]
            proposal = max(finite, key=lambda p: _rank(self.records[p]), default=None)
        if proposal is None:
            return None
        one = self.records[proposal]
        levels = tuple(self._space.levels_of(proposal))
        return Best(levels, proposal if isinstance(proposal, tuple) else None, one.loss, len(one.losses))

    def read(self, line: str | bytes) -> None:
        """Add a line of the journal.

        Raises:
            ValueError: or what else of `files.reading.DAMAGE`: the line is damaged.
            UserError: it is of another space.
        """
        self._lines += 1
        record = parse_json(line)
        if self._lines == 1:
            if not journal.HEADER.items() <= record.items():
                raise ValueError("no journal, or one of another version")
        elif "slopes" in record:
            estimate = journal.decode_estimate(record)
            passes = SLOPE_PASSES * len(estimate.sequences)
            self._charge(passes, passes, estimate.seconds)
        elif "ended" in record:
            self._seconds = journal.decode_end(record).seconds
        elif not record["losses"]:
            raise ValueError("a score of no sequence")
        else:
            self._add(journal.decode(record))

    def _add(self, score: journal.Score) -> None:
        proposal, records = score.proposal, self.records
        self._space.check(proposal)
        if proposal not in records or score.steps > records[proposal].steps:
            records[proposal] = Scored(self._space.keys(proposal), {}, self._space.feasible(proposal), score.steps)
        one = records[proposal]
        self._charge(1 + score.passes, score.passes + len(score.sequences), score.seconds)
        self._training += score.passes * self._length
        self.failed += score.failed is not None
        if score.steps == one.steps:  # losses after fewer training steps are of other weights
            one.losses.update(zip(score.sequences, score.losses, strict=True))
        if one.feasible and (self._leader is None or _rank(one) > _rank(records[self._leader])):
            self._leader = proposal
        if self._leader is not None:
            self.history.append((self._tokens, self._seconds, records[self._leader].loss))

    def _charge(self, evals: int, sequences: int, seconds: float) -> None:
        self._evals, self._tokens, self._seconds = self._evals + evals, self._tokens + sequences * self._length, seconds


def _rank(one: Scored) -> tuple[bool, int, int, float]:
    return math.isfinite(one.loss), one.steps, len(one.losses), -one.loss
