"""The objective's bookkeeping: memo, nested fidelities, limits, journal and replay."""

import json
import math
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.archive import Archive
from autoprune.errors import LimitReached, UserError
from autoprune.journal import HEADER, Journal, Score
from autoprune.mask import Mask
from autoprune.objective import Limits, Objective
from autoprune.testing.toys import ToyScorer, toy_space


@pytest.fixture
def toy() -> tuple[Objective, ToyScorer]:
    space = toy_space()
    scorer = ToyScorer(space)
    return Objective(space, scorer, Limits(tokens=32 * 100)), scorer


def test_more_tokens_of_a_policy_cost_only_the_new_ones(toy: tuple[Objective, ToyScorer]) -> None:
    objective, scorer = toy
    policy = objective.space.uniform()
    objective([policy], tokens=32 * 4)
    assert objective.spent.tokens == 32 * 4
    whole = objective([policy], tokens=32 * 10)
    assert objective.spent.tokens == 32 * 10
    assert objective([policy, policy], tokens=32 * 10) == pytest.approx([whole[0]] * 2)
    assert (objective.spent.tokens, objective.spent.evals, scorer.calls) == (320, 2, 2)
    assert whole[0] == scorer.score([policy], range(10)).mean()


def test_limits_score_what_fits_and_then_end_the_search() -> None:
    space = toy_space()
    rng = np.random.default_rng(0)
    policies = [space.sample(rng) for _ in range(20)]
    for limits, fit in [(Limits(tokens=32 * 7 + 31), 7), (Limits(evals=5), 5)]:
        objective = Objective(space, ToyScorer(space), limits)
        with pytest.raises(LimitReached):
            objective(policies, tokens=32)
        assert objective.spent.evals == fit == len(objective.archive())
        assert objective.best in policies[:fit]


def test_best_is_the_lowest_loss_at_the_highest_fidelity(toy: tuple[Objective, ToyScorer]) -> None:
    objective, scorer = toy
    rng = np.random.default_rng(0)
    policies = sorted({objective.space.sample(rng) for _ in range(6)}, key=scorer.true_loss)
    objective(policies[:1], tokens=32)  # truly best, but hardly looked at
    objective(policies[1:], tokens=32 * 16)
    losses = {p: loss for p, loss, n in objective.archive() if n == 16}
    assert objective.best == min(losses, key=lambda p: losses[p])


def test_an_agent_that_goes_on_after_any_error_ends(toy: tuple[Objective, ToyScorer]) -> None:
    objective, _ = toy
    rng = np.random.default_rng(0)

    def stubborn() -> None:
        for _ in range(200):
            with suppress(Exception):
                objective([objective.space.sample(rng)])

    with pytest.raises(LimitReached):
        stubborn()


def test_no_policies_and_no_sequences_are_empty_answers(toy: tuple[Objective, ToyScorer]) -> None:
    objective, _ = toy
    assert objective([]).shape == (0,)
    assert objective.by_sequence([objective.space.uniform()] * 2, []).shape == (2, 0)
    assert objective.spent.evals == 0


@pytest.mark.parametrize("sequence", [-1, 10**9])
def test_a_sequence_that_is_not_there_is_refused(toy: tuple[Objective, ToyScorer], sequence: int) -> None:
    with pytest.raises(ValueError, match="asked for sequence"):
        toy[0].by_sequence([toy[0].space.uniform()], [sequence])


def test_an_answer_is_a_scored_policy_within_the_budgets(toy: tuple[Objective, ToyScorer]) -> None:
    objective, _ = toy
    uniform, dense = objective.space.uniform(), objective.space.dense
    with pytest.raises(ValueError, match="no loss is known"):
        objective.declare(uniform)
    objective([uniform])
    objective.by_sequence([dense], [0], probe=True)
    with pytest.raises(ValueError, match="breaks a budget"):
        objective.declare(dense)
    objective.declare(np.array(uniform))  # type: ignore[arg-type]
    assert objective.best == uniform


def test_probes_may_break_budgets_and_are_no_candidates(toy: tuple[Objective, ToyScorer]) -> None:
    objective, _ = toy
    dense = objective.space.dense
    with pytest.raises(ValueError, match="breaks a budget"):
        objective([dense])
    objective.by_sequence([dense], [0], probe=True)
    assert objective.spent.tokens == 32
    with pytest.raises(UserError, match="no policy"):
        _ = objective.best


def test_a_candidate_that_overflows_is_worst_and_does_not_end_the_search() -> None:
    space = toy_space()

    class Overflowing(ToyScorer):
        def score(self, policies, sequences):  # type: ignore[no-untyped-def]
            losses = super().score(policies, sequences)
            losses[[p == space.uniform() for p in policies]] = np.nan
            return losses

    objective = Objective(space, Overflowing(space), Limits())
    other = space.sample(np.random.default_rng(0))
    assert objective([space.uniform(), other])[0] == math.inf
    assert objective.best == other


finite_or_inf = st.floats(allow_nan=False, allow_infinity=False) | st.just(math.inf)
scores = st.lists(
    st.lists(finite_or_inf, min_size=1, max_size=4).flatmap(
        lambda losses: st.builds(
            Score,
            st.lists(st.integers(0, 9), max_size=5).map(tuple) | st.binary(max_size=5).map(Mask),
            st.just(tuple(range(len(losses)))),
            st.just(losses),
            st.floats(0, 1e6),
        )
    ),
    max_size=6,
    unique_by=lambda s: (s.proposal, s.sequences),
)


@given(scores, st.integers(0, 200))
def test_a_journal_reads_back_exactly_and_survives_a_torn_end(written: list[Score], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        journal = Journal(path)
        journal.append(written)
        journal.close()
        again = Journal(path)
        again.close()
        assert len(again.replay()) == len(written)
        for score in written:
            assert again.replay().take(score.proposal, score.sequences) == score
        raw = path.read_bytes()
        path.write_bytes(raw[: max(0, len(raw) - cut)])
        torn = Journal(path)
        torn.append(written[:1])
        torn.close()
        lines = path.read_text().splitlines()
        assert json.loads(lines[0]).items() >= HEADER.items()
        assert all(json.loads(line) for line in lines)


def test_a_journal_damaged_in_the_middle_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps(HEADER | {"subject": ""}) + "\n{broken\n")
    with pytest.raises(UserError, match="line 2"):
        Journal(path)


def test_replayed_scores_are_charged_but_not_computed_again(tmp_path: Path) -> None:
    space = toy_space()
    rng = np.random.default_rng(0)
    policies = list(dict.fromkeys(space.sample(rng) for _ in range(12)))
    with closing(Journal(tmp_path / "j")) as journal:
        first = Objective(space, ToyScorer(space), Limits(tokens=3200), journal)
        losses = first(policies, tokens=64)
    scorer = ToyScorer(space)
    with closing(Journal(tmp_path / "j")) as journal:
        second = Objective(space, scorer, Limits(tokens=3200), journal)
        assert np.array_equal(second(policies, tokens=64), losses)
    assert scorer.calls == 0
    assert second.spent.tokens == first.spent.tokens
    assert [h[0] for h in second.history] == [h[0] for h in first.history]


@pytest.mark.parametrize("journalled", [False, True])
def test_a_score_costs_the_same_however_many_there_are(journalled: bool, tmp_path: Path) -> None:
    """Lines of Python, not seconds: of the last scores of a search, and of a resume, as many as of the first."""
    space, rng = toy_space(units=8, levels=9), np.random.default_rng(0)
    policies = list(dict.fromkeys(space.sample(rng) for _ in range(2200)))[:2000]
    assert len(policies) == 2000

    def lines(life: int) -> list[int]:
        """Executed in each quarter of a search that scores every policy on one sequence."""
        scorer, found = ToyScorer(space), []
        with closing(Journal(tmp_path / "journal" if journalled else None)) as journal:
            objective = Objective(space, scorer, Limits(evals=len(policies)), journal)
            for quarter in range(4):
                counted = 0

                def count(frame: object, event: str, _: object) -> object:
                    nonlocal counted
                    counted += event == "line"
                    return count

                before = sys.gettrace()
                sys.settrace(count)  # type: ignore[arg-type]
                try:
                    for start in range(500 * quarter, 500 * (quarter + 1), 16):
                        objective(policies[start : min(start + 16, 500 * (quarter + 1))], tokens=32)
                finally:
                    sys.settrace(before)
                found.append(counted)
        assert scorer.calls == (0 if journalled and life else len(policies))
        assert objective.best == min(policies, key=lambda p: objective.loss(p)[0])
        return found

    for life in range(2):
        found = lines(life)
        assert max(found) < 1.2 * min(found), found


def test_of_equals_the_first_leads_and_one_that_overflows_later_loses_its_lead() -> None:
    archive = Archive()
    for policy, loss in (((0,), 2.0), ((1,), 1.0), ((2,), 1.0)):
        archive.ask(policy, [0])
        archive.add(policy, [0], [loss])
        archive.nominate(policy)
    assert archive.leader() == (1,)
    archive.add((2,), [1], [5.0])
    assert archive.leader() == (2,), "more sequences count for more than a lower mean"
    archive.add((2,), [2], [math.inf])
    assert archive.leader() == (1,)
    archive.add((1,), [1], [math.inf])
    archive.add((0,), [1], [math.inf])
    assert archive.leader() is None
