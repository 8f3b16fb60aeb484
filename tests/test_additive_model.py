"""The model that evolution learns: it starts where it is told, and finds what comparisons say."""

import numpy as np
import pytest

from autoprune.agents.additive_model import AdditiveModel, added, guess
from autoprune.space import Levels
from autoprune.testing.toys import ToyScorer, toy_space
from tests.test_sensitivity import true_losses

Table = np.ndarray


def toy(noise: float = 0.0) -> tuple[ToyScorer, Table]:
    scorer = ToyScorer(toy_space(6, 5), noise=noise, pairs=0)
    return scorer, true_losses(scorer)


def taught(model: AdditiveModel, scorer: ToyScorer, comparisons: int) -> None:
    rng = np.random.default_rng(0)
    sequences = range(4)
    parent = scorer.space.sample(rng)
    for _ in range(comparisons):
        child = scorer.space.mutate(parent, rng, 2)
        parent_S, child_S = scorer.score([parent, child], sequences)
        model.learn(parent, child, child_S - parent_S)
        parent = child


def mean(model: AdditiveModel, tables: int = 400) -> Table:
    added_UL: Table = model.draw(np.random.default_rng(1), tables).mean(axis=0)
    return added_UL


def test_before_anything_is_seen_it_believes_what_it_was_told() -> None:
    _, right = toy()
    model = AdditiveModel(right)
    tables = model.draw(np.random.default_rng(0), 2000)
    assert np.array_equal(tables[:, :, 0], np.zeros((2000, 6)))
    assert tables.mean(axis=0) == pytest.approx(right, rel=0.1, abs=0.02)
    assert np.diff(tables, axis=2).std(axis=0) == pytest.approx(np.diff(right), rel=0.1, abs=0.1 * right.mean())


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_comparisons_teach_it_which_swaps_are_good(noise: float) -> None:
    scorer, right = toy(noise)
    space, uniform = scorer.space, scorer.space.uniform()
    wrong = guess(space, uniform, scorer.true_loss(uniform))
    model = AdditiveModel(wrong)
    taught(model, scorer, 200)
    rng = np.random.default_rng(2)
    policies = [space.mutate(uniform, rng, 2) for _ in range(50)]
    truth = added(right, policies)
    before, after = (
        np.corrcoef(truth, added(wrong, policies))[0, 1],
        np.corrcoef(truth, added(mean(model), policies))[0, 1],
    )
    assert after > 0.97 > before


def test_it_grows_surer_of_what_was_compared_and_only_of_that() -> None:
    _, right = toy()
    model = AdditiveModel(right)
    before = model.draw(np.random.default_rng(0), 500).std(axis=0)
    dense: Levels = (0,) * 6
    for _ in range(5):
        model.learn(dense, (1, 0, 0, 0, 0, 0), np.array([right[0, 1]] * 4))
    after = model.draw(np.random.default_rng(0), 500).std(axis=0)
    assert after[0, 1] < 0.6 * before[0, 1] or right[0, 1] < right.mean()
    assert after[1:] == pytest.approx(before[1:], rel=0.2)


def test_a_network_that_overflows_teaches_nothing() -> None:
    _, right = toy()
    model, untaught = AdditiveModel(right), AdditiveModel(right)
    for broken in (np.inf, np.nan):
        model.learn((0,) * 6, (1,) * 6, np.array([0.1, broken]))
    assert np.array_equal(model.draw(np.random.default_rng(0), 3), untaught.draw(np.random.default_rng(0), 3))


def test_a_guess_adds_up_to_the_loss_it_was_made_from() -> None:
    space = toy_space(6, 5)
    uniform = space.uniform()
    assert added(guess(space, uniform, 0.8), [uniform, space.dense]) == pytest.approx([0.8, 0.0])
    assert guess(space, space.dense, 0.0) == pytest.approx(0.0)


def test_nothing_to_learn_is_no_error() -> None:
    model = AdditiveModel(np.zeros((2, 3)))
    model.learn((0, 0), (1, 1), np.zeros(2))
    assert np.isfinite(model.draw(np.random.default_rng(0), 2)).all()
