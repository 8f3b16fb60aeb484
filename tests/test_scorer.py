"""The port of a scorer: a wrapped one has every member of it, and whatever passes scores on is a wrapper."""

import ast
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune.evaluation.evaluator import Evaluator
from autoprune.objective import Limits, Objective
from autoprune.ports.candidate_training import CandidateTraining
from autoprune.ports.scorer import POLICIES_AT_ONCE, Scorer, ScorerWrapper
from autoprune.space import Levels, Proposal
from autoprune.testing.toys import ToyScorer, toy_space
from autoprune.workers.pool import PoolScorer

ROOT = Path(__file__).parent.parent
REMOTE = {"Worker"}
"""Answers the pool, with its seconds, and no objective: what is optional is `PoolScorer`'s."""

MEMBERS = sorted(name for name in vars(Scorer) if not name.startswith("_"))


class Rich(ToyScorer):
    """Has every optional member."""

    policies_at_once = 3
    slope_passes = 8
    step_passes = 6

    def score_trained(self, policies: Sequence[Proposal], sequences: Sequence[int], steps: int) -> NDArray[np.float64]:
        return self.score(policies, sequences) / (1 + steps)

    @property
    def failures(self) -> dict[Proposal, str]:
        return {self.space.sparsest: "it does not fit"}

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64]:
        return np.full((len(policy), 5), float(sum(sequences)))


def told(scorer: Scorer) -> dict[str, object]:
    """The answer of every member of the port."""
    dense = toy_space().dense
    asked: dict[str, tuple[object, ...]] = {
        "score": ([dense], [0, 3]), "dense_losses": ([1, 2],), "slopes": (dense, [3, 4]),
        "score_trained": ([dense], [0, 3], 2), "training_passes": (1, 3),
    }  # fmt: skip
    answers = {}
    for name in MEMBERS:
        if name == "with_training":  # makes another scorer: tested on its own
            continue
        member = getattr(scorer, name)
        try:
            answer = member(*asked[name]) if callable(member) else member
        except NotImplementedError:
            answer = "it cannot"
        answers[name] = answer.tolist() if isinstance(answer, np.ndarray) else answer
    return answers


def test_a_wrapper_forwards_every_member() -> None:
    assert set(MEMBERS) == set(vars(ScorerWrapper)) & set(MEMBERS)
    assert {"slopes", "slope_passes", "policies_at_once", "failures", "dense_losses"} < set(MEMBERS)
    scorer = Rich(toy_space())
    assert told(ScorerWrapper(ScorerWrapper(scorer))) == told(scorer)


def test_a_wrapper_stays_around_a_scorer_that_trains() -> None:
    class Trains(Rich):
        def with_training(self, how: CandidateTraining, tick: Callable[[], None]) -> Scorer:
            trained = Trains(self.space)
            trained.step_passes = how.rank
            return trained

    class Doubled(ScorerWrapper):
        def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
            return 2 * super().score(policies, sequences)

    how = CandidateTraining(rank=77)
    scorer = Doubled(Trains(toy_space())).with_training(how, lambda: None)
    assert scorer.step_passes == 77
    dense = toy_space().dense
    assert scorer.score([dense], [0]) == 2 * Rich(toy_space()).score([dense], [0])


def test_what_a_scorer_lacks_is_declared() -> None:
    class Least(ToyScorer):
        dense_losses = Scorer.dense_losses

    found = told(Least(toy_space()))
    assert found["policies_at_once"] == POLICIES_AT_ONCE
    assert (found["slope_passes"], found["slopes"], found["failures"]) == (0, None, {})
    assert found["dense_losses"] == [0, 0]
    assert (found["step_passes"], found["training_passes"], found["score_trained"]) == (0, 0, "it cannot")
    with pytest.raises(TypeError, match="abstract"):
        Scorer()  # type: ignore[abstract]


def test_an_objective_finds_the_same_behind_a_wrapper() -> None:
    scorer = Rich(toy_space())
    for one in (scorer, ScorerWrapper(scorer)):
        objective = Objective(scorer.space, one, Limits())
        assert objective.slope_passes == 8
        assert objective.slopes(scorer.space.dense, [0, 1]) is not None
        scorer.batches.clear()
        rng = np.random.default_rng(0)
        objective(sorted({scorer.space.sample(rng) for _ in range(7)}), tokens=32)
        assert max(scorer.batches) == 3


def test_the_real_scorers_are_of_the_port() -> None:
    assert issubclass(Evaluator, Scorer)
    assert issubclass(PoolScorer, Scorer)
    assert not inspect.isabstract(Evaluator)
    assert not inspect.isabstract(PoolScorer)


def passing_on(source: str) -> list[str]:
    """Classes whose `score` asks another object's, and that are no wrapper."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef) or "ScorerWrapper" in (node.name, *map(ast.unparse, node.bases)):
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "score":
                calls = [call.func for call in ast.walk(method) if isinstance(call, ast.Call)]
                asked = [f for f in calls if isinstance(f, ast.Attribute) and f.attr == "score"]
                found += [node.name for f in asked if ast.unparse(f.value) not in ("self", "super()")]
    return found


def test_whatever_passes_scores_on_is_a_wrapper() -> None:
    hiding = "class Counted:\n    def score(self, p, s):\n        return self._evaluator.score(p, s)\n"
    assert passing_on(hiding) == ["Counted"]
    assert passing_on(hiding.replace("Counted", "Counted(ScorerWrapper)")) == []
    for folder in ("autoprune", "agents", "envs", "benchmarks", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert set(passing_on(path.read_text(encoding="utf-8"))) <= REMOTE, path
