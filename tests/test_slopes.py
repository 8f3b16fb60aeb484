"""Slopes: derivatives are those of the whole network; what they cost is charged, journalled and replayed."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoprune.agents.evolution import Evolution
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.errors import LimitReached
from autoprune.evaluation.slopes import PASSES, REACH
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.space import Levels, SearchSpace
from autoprune.testing.toys import ToyScorer, best_loss, toy_space

STEP = 0.02


@pytest.fixture(scope="module")
def assembly(quick: dict[str, Any]) -> Assembly:
    return assemble(load_config(None, quick))


def test_denser_levels_change_the_loss_as_finite_differences_say(assembly: Assembly) -> None:
    evaluator, space = assembly.evaluator(assembly.splits.search, "kl"), assembly.space
    rng, view, sequence = np.random.default_rng(0), assembly.view, 2
    policy = space.sample(rng)
    slopes_UL = evaluator.slopes(policy, [sequence])
    assert slopes_UL is not None
    target = evaluator._readout.references(sequence, assembly.splits.search[sequence])
    found, expected = [], []
    for u in (u for u, level in enumerate(policy) if level > 0 and space.units[u].kind == "mlp"):
        denser, block = (*policy[:u], policy[u] - 1, *policy[u + 1 :]), space.units[u].block

        def loss(step: float, block: int = block, denser: Levels = denser) -> float:
            hidden = view.embed(assembly.splits.search[[sequence]])
            for b in range(len(view.blocks)):
                before = hidden
                assembly.placer.place_block(b, assembly.placer.choices(policy)[b])
                hidden = view.run(b, before)
                if b == block:
                    assembly.placer.place_block(b, assembly.placer.choices(denser)[b])
                    hidden = hidden + step * (view.run(b, before) - hidden)
            return float(evaluator._readout.measure(hidden, [target])[0, 0])

        found.append(slopes_UL[u, policy[u] - 1])
        expected.append((loss(STEP) - loss(-STEP)) / (2 * STEP))
    assert len(found) > 1
    assert found == pytest.approx(expected, rel=0.03, abs=2e-5)


def test_slopes_are_known_within_reach_and_do_not_depend_on_the_company(assembly: Assembly) -> None:
    evaluator, space = assembly.evaluator(assembly.splits.search, "kl"), assembly.space
    policy = space.sample(np.random.default_rng(1))
    apart = [evaluator.slopes(policy, [s]) for s in (0, 3)]
    together = evaluator.slopes(policy, [0, 3])
    assert together is not None
    assert np.array_equal(together, np.mean([one for one in apart if one is not None], axis=0), equal_nan=True)
    for u, level in enumerate(policy):
        known = np.flatnonzero(~np.isnan(together[u]))
        assert known.tolist() == list(range(max(0, level - REACH), min(int(space.n_levels_U[u]), level + REACH + 1)))
        assert together[u, level] == 0
    assembly.placer.place(policy)
    before = assembly.loaded.model(input_ids=assembly.splits.search[:1]).logits
    evaluator.slopes(policy, [1])
    assembly.placer.place(policy)
    assert torch.equal(assembly.loaded.model(input_ids=assembly.splits.search[:1]).logits, before)


def test_units_of_one_level_have_no_slopes(quick: dict[str, Any]) -> None:
    """Of few groups a level near 1 keeps all of them."""
    assembly = assemble(load_config(None, quick | {"levels": [0.95], "budgets": {"params": 0.97}}))
    space, evaluator = assembly.space, assembly.evaluator(assembly.splits.search, "kl")
    assert set(space.n_levels_U) == {1, 2}
    slopes_UL = evaluator.slopes(space.dense, [0])
    assert slopes_UL is not None
    assert np.array_equal(np.isfinite(slopes_UL).sum(axis=1), space.n_levels_U)
    objective = Objective(space, evaluator, Limits(evals=60))
    with suppress(LimitReached):
        Evolution(first_tokens=64).search(objective, np.random.default_rng(0))
    assert space.feasible(objective.best)


def test_a_network_that_overflows_tells_nothing(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, space = assembly.evaluator(assembly.splits.search, "kl"), assembly.space
    u, policy = space.units.index(next(unit for unit in space.units if unit.kind == "mlp")), space.uniform()
    before = evaluator.slopes(policy, [0])
    placed, run = assembly.placer.place_alone, assembly.view.run
    here: list[Any] = []

    def place(*which: Any) -> None:
        placed(*which)
        here[:] = which

    def overflow(block: int, hidden: torch.Tensor) -> torch.Tensor:
        return run(block, hidden) * (torch.inf if here == [space.units[u].block, 1, policy[u] + 1] else 1)

    monkeypatch.setattr(assembly.placer, "place_alone", place)
    monkeypatch.setattr(assembly.view, "run", overflow)
    after = evaluator.slopes(policy, [0])
    assert before is not None
    assert after is not None
    assert np.isnan(after[u, policy[u] + 1])
    before[u, policy[u] + 1] = np.nan
    assert np.array_equal(after, before, equal_nan=True)


def test_a_search_is_what_it_was_when_its_slopes_are_replayed(assembly: Assembly, tmp_path: Path) -> None:
    evaluator, limits = assembly.evaluator(assembly.splits.search, "kl"), Limits(evals=90)

    def search(journal: Journal) -> tuple[Objective, list[Levels]]:
        objective = Objective(assembly.space, evaluator, limits, journal)
        with pytest.raises(LimitReached):
            Evolution(first_tokens=64, slope_sequences=1).search(objective, np.random.default_rng(0))
        journal.close()
        return objective, [answer.proposal for answer in objective.incumbents]  # type: ignore[misc]

    path = tmp_path / "journal.jsonl"
    whole, answers = search(Journal(path, "s"))
    lines = path.read_text().splitlines(keepends=True)
    slopes = [i for i, line in enumerate(lines) if '"slopes"' in line]
    assert slopes
    assert whole.spent.evals == sum('"losses"' in line for line in lines) + PASSES * len(slopes)
    for cut in (slopes[0], slopes[0] + 1, len(lines) // 2):
        path.write_text("".join(lines[:cut]))
        again, found = search(Journal(path, "s"))
        assert (found, again.spent.tokens) == (answers, whole.spent.tokens)
        told = [line.rpartition(',"seconds"')[0] for line in path.read_text().splitlines()]
        assert told == [line.rpartition(',"seconds"')[0] for line in lines]


class ToySlopes(ToyScorer):
    """Tells what single units do, exactly, at the price of the real thing."""

    slope_passes = PASSES

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64]:
        changes_UL = np.full((len(policy), int(self.space.n_levels_U.max())), np.nan)
        at = self.true_loss(policy)
        for u, level in enumerate(policy):
            for other in range(max(0, level - REACH), min(int(self.space.n_levels_U[u]), level + REACH + 1)):
                changes_UL[u, other] = self.true_loss((*policy[:u], other, *policy[u + 1 :])) - at
        return changes_UL


def searched(scorer: ToyScorer, space: SearchSpace, seed: int) -> float:
    objective = Objective(space, scorer, Limits(tokens=120 * scorer.tokens_per_sequence))
    with pytest.raises(LimitReached):
        Evolution(first_tokens=128, sensitivity_tokens=32).search(objective, np.random.default_rng(seed))
    return scorer.true_loss(objective.best)


def test_evolution_climbs_along_slopes() -> None:
    with_slopes, without = [], []
    for seed in range(6):
        space = toy_space(units=20, levels=9, seed=seed)
        best = best_loss(ToyScorer(space, seed), restarts=2)
        with_slopes.append(searched(ToySlopes(space, seed), space, seed) / best)
        without.append(searched(ToyScorer(space, seed), space, seed) / best)
    assert np.mean(with_slopes) < np.mean(without)
    assert np.mean(with_slopes) < 1.1


def test_what_the_limits_do_not_allow_is_not_computed() -> None:
    scorer = ToySlopes(toy_space())
    objective = Objective(scorer.space, scorer, Limits(evals=PASSES + 1))
    assert objective.slopes(scorer.space.uniform(), [0]) is not None
    assert (objective.spent.evals, objective.spent.tokens) == (PASSES, PASSES * scorer.tokens_per_sequence)
    with pytest.raises(LimitReached):
        objective.slopes(scorer.space.uniform(), [0])
    assert Objective(scorer.space, ToyScorer(scorer.space), Limits()).slopes(scorer.space.uniform(), [0]) is None
