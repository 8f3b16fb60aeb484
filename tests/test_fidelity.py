"""Losses after training steps: known apart from those before, charged in forward passes, journalled and replayed."""

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune.archive import Archive
from autoprune.errors import LimitReached, UserError
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.ports.scorer import ScorerWrapper
from autoprune.space import Levels, Proposal, SearchSpace
from autoprune.testing.toys import ToyScorer, toy_space

LENGTH, PASSES = 32, 6


class TrainedToy(ToyScorer):
    """Training wins back nearly all that the first unit lost, so policies rank in another order after it."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self.trained: list[tuple[Proposal, int]] = []

    @property
    def step_passes(self) -> int:
        return PASSES

    def score_trained(self, policies: Sequence[Proposal], sequences: Sequence[int], steps: int) -> NDArray[np.float64]:
        self.trained += [(policy, steps) for policy in policies]
        won = np.array([self.importance_U[0] * self.depth(policy)[0] ** 2 for policy in policies])
        return self.score(policies, sequences) - won[:, None] * (1 - 0.5**steps)


@pytest.fixture
def space() -> SearchSpace:
    return toy_space()


def policies_of(space: SearchSpace, count: int) -> list[Levels]:
    rng = np.random.default_rng(0)
    return list(dict.fromkeys(space.sample(rng) for _ in range(2 * count)))[:count]


def test_a_loss_is_known_by_policy_sequence_and_steps(space: SearchSpace) -> None:
    scorer = TrainedToy(space)
    objective, (one, *_) = Objective(space, scorer, Limits()), policies_of(space, 1)
    before, after = objective([one], tokens=4 * LENGTH)[0], objective([one], tokens=4 * LENGTH, steps=3)[0]
    assert after < before
    assert objective([one], tokens=4 * LENGTH)[0] == before
    assert objective([one], tokens=4 * LENGTH, steps=3)[0] == after
    assert scorer.trained == [(one, 3)]
    loss, tokens = objective.loss(one)
    assert tokens == 4 * LENGTH
    assert loss == pytest.approx(after), "the loss of a policy is that after most steps"


def test_steps_are_charged_once_as_forward_passes(space: SearchSpace) -> None:
    objective, (one, *_) = Objective(space, TrainedToy(space), Limits()), policies_of(space, 1)
    objective([one], tokens=LENGTH, steps=3)
    assert (objective.spent.tokens, objective.spent.evals) == ((3 * PASSES + 1) * LENGTH, 3 * PASSES + 1)
    objective([one], tokens=4 * LENGTH, steps=3)
    assert objective.spent.tokens == (3 * PASSES + 4) * LENGTH
    objective([one], tokens=LENGTH, steps=5)
    assert objective.spent.tokens == (3 * PASSES + 4 + 2 * PASSES + 1) * LENGTH, (
        "two steps more go on where three ended"
    )


def test_limits_hold_with_steps(space: SearchSpace) -> None:
    objective = Objective(space, TrainedToy(space), Limits(tokens=2 * (3 * PASSES + 1) * LENGTH + 5))
    with pytest.raises(LimitReached):
        objective(policies_of(space, 5), tokens=LENGTH, steps=3)
    assert objective.spent.tokens == 2 * (3 * PASSES + 1) * LENGTH
    assert len(objective.archive()) == 2


def test_the_answer_is_the_best_after_the_most_steps(space: SearchSpace) -> None:
    objective, policies = Objective(space, TrainedToy(space), Limits()), policies_of(space, 8)
    objective(policies)
    assert {n for _, _, n in objective.archive()} == {objective.n_sequences}
    losses = objective(policies[:3], tokens=2 * LENGTH, steps=2)
    assert objective.best == policies[int(np.argmin(losses))]
    assert [policy for policy, _, _ in objective.archive()] == policies[:3], (
        "those that can be compared with the answer"
    )


def test_who_cannot_train_says_so(space: SearchSpace) -> None:
    objective = Objective(space, ToyScorer(space), Limits())
    assert objective.step_passes == 0
    with pytest.raises(ValueError, match="nothing here can train"):
        objective(policies_of(space, 1), steps=1)
    assert Objective(space, ScorerWrapper(TrainedToy(space)), Limits()).step_passes == PASSES


def test_killed_and_resumed_equals_uninterrupted(space: SearchSpace, tmp_path: Path) -> None:
    policies = policies_of(space, 6)

    def search(scorer: TrainedToy, tokens: int) -> Objective:
        with closing(Journal(tmp_path / f"{tokens}-{id(scorer)}" if tokens else tmp_path / "journal")) as journal:
            objective = Objective(space, scorer, Limits(tokens=tokens or None), journal)
            with suppress(LimitReached):
                objective(policies, tokens=4 * LENGTH)
                objective(policies, tokens=2 * LENGTH, steps=1)
                objective(policies[:2], tokens=4 * LENGTH, steps=2)
            return objective

    whole_scorer, again_scorer = TrainedToy(space), TrainedToy(space)
    whole, again = search(whole_scorer, 0), search(again_scorer, 0)
    assert (whole.best, whole.spent.tokens, whole.archive()) == (again.best, again.spent.tokens, again.archive())
    assert whole_scorer.trained
    assert not again_scorer.trained
    lines = (tmp_path / "journal").read_text().splitlines()
    (tmp_path / "journal").write_text("\n".join(lines[:-1]) + "\n")
    third_scorer = TrainedToy(space)
    third = search(third_scorer, 0)
    assert (third.best, third.spent.tokens, third.archive()) == (whole.best, whole.spent.tokens, whole.archive())
    assert third_scorer.trained == [(policies[1], 2)]


@pytest.mark.parametrize("steps", ['"2"', "1.5", "true", "-1", "null"])
def test_damaged_steps_are_refused(space: SearchSpace, tmp_path: Path, steps: str) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        Objective(space, TrainedToy(space), Limits(), journal)(policies_of(space, 1), tokens=LENGTH, steps=3)
    path = tmp_path / "journal"
    path.write_text(path.read_text().replace('"steps":3', f'"steps":{steps}'))
    with pytest.raises(UserError, match="line 2"):
        Journal(path)


def test_a_training_that_diverged_leaves_the_loss_before_it(space: SearchSpace) -> None:
    archive, (policy, other) = Archive(), policies_of(space, 2)
    for one, losses in ((policy, {0: 2.0, 4: 1.0, 16: np.inf}), (other, {4: np.inf})):
        for steps, loss in losses.items():
            archive.ask(one, [0, 1], steps)
            archive.add(one, [0, 1], [loss, loss], steps)
            archive.nominate(one, steps)
    assert archive.standing(policy) == (1.0, 2)
    assert archive.most_steps(policy) == 4
    assert archive.standing(other) == (np.inf, 2)
    assert archive.leader() == policy
