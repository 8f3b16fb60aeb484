"""Candidates compared after training: `evolution` with `train_tokens`, its stages, costs, limits and replays."""

import json
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoprune
from autoprune import study
from autoprune.agents.evolution import Evolution
from autoprune.agents.training_stages import TrainingStages, finalists, shortlist
from autoprune.config import load_config
from autoprune.errors import LimitReached, UserError
from autoprune.objective import Limits, Objective
from autoprune.ports.candidate_training import CandidateTraining
from autoprune.reports.run import read_run
from autoprune.testing.toys import ToyScorer, toy_space
from autoprune.training.learner import Learner
from tests.conftest import QUICK
from tests.test_fidelity import PASSES, TrainedToy, policies_of

LENGTH = 32
TRAINS = {"train_tokens": 64, "train_from": 0.3, "trained": 2, "trainer": "full"}


@pytest.fixture
def quick(tiny_model: str, text_file: str) -> dict[str, Any]:
    return {**QUICK, "model": tiny_model, "data": text_file, "budgets": {"params": 0.5}, "max_evals": 900}


def lines_of(run: Path) -> list[str]:
    """Without the seconds and the run's identity."""
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [json.dumps({key: value for key, value in line.items() if key not in ("seconds", "id")}) for line in lines]


def test_stages_train_longer_and_keep_fewer() -> None:
    scorer = TrainedToy(toy_space())
    objective, policies = Objective(scorer.space, scorer, Limits()), policies_of(scorer.space, 5)
    stages = TrainingStages.of(objective, LENGTH, 4, CandidateTraining())
    assert stages.steps == (1, 4, 16)
    chosen = stages.choose(objective, policies[4], policies[:4], list(range(16)))
    taken = [(policy, steps) for policy, steps in scorer.trained]
    assert [policy for policy, steps in taken if steps == 1] == policies[:4]
    assert len({policy for policy, steps in taken if steps == 4}) == 2
    last = {policy for policy, steps in taken if steps == 16}
    assert len(last) == 2
    assert policies[4] in last, "the parent takes part in the last stage"
    assert chosen == min(last, key=lambda policy: objective([policy], steps=16)[0])
    steps = 4 * 1 + 2 * 3 + 1 * 12 + 16  # the training of a survivor goes on
    assert objective.spent.training == steps * PASSES * LENGTH
    assert objective.spent.tokens > objective.spent.training


def test_a_rival_that_leads_only_without_training_does_not_win() -> None:
    scorer = TrainedToy(toy_space())
    objective = Objective(scorer.space, scorer, Limits())
    policies = sorted(policies_of(scorer.space, 12), key=scorer.true_loss)
    stages = TrainingStages.of(objective, LENGTH, 12, CandidateTraining())
    chosen = stages.choose(objective, policies[0], policies[1:], list(range(16)))
    after_P = objective(policies, steps=16)
    assert chosen is not None
    assert after_P[policies.index(chosen)] <= after_P[0]
    assert shortlist(objective, policies[0], policies, list(range(16)), 3) == policies[1:4]


def test_finalists_are_the_best_of_the_search() -> None:
    scorer = ToyScorer(toy_space(), noise=0.0)
    objective, policies = Objective(scorer.space, scorer, Limits()), policies_of(scorer.space, 9)
    assert finalists(objective, 3) == []
    objective(policies)
    assert finalists(objective, 3) == sorted(policies, key=scorer.true_loss)[:3]


def test_stages_that_cannot_be_completed_are_not_begun() -> None:
    scorer = TrainedToy(toy_space())
    objective = Objective(scorer.space, scorer, Limits(tokens=100_000))
    stages = TrainingStages.of(objective, LENGTH, 4, CandidateTraining())
    trained = (16 + 4 * 1 + 2 * 3 + 1 * 12) * PASSES
    tokens = (trained + (6 + 8 + 2) * 4) * LENGTH
    assert stages.affordable(objective, 6, 4)
    for limit, whether in ((tokens, True), (tokens - 1, False)):
        objective = Objective(scorer.space, scorer, Limits(tokens=limit))
        assert stages.affordable(objective, 6, 4) is whether
    for evals, whether in ((trained + 16, True), (trained + 15, False)):
        assert stages.affordable(Objective(scorer.space, scorer, Limits(evals=evals)), 6, 4) is whether


@pytest.mark.parametrize(("tokens", "trains"), [(1500 * LENGTH, True), (300 * LENGTH, False)])
def test_a_search_trains_only_where_it_can_compare(tokens: int, trains: bool) -> None:
    scorer = TrainedToy(toy_space())
    objective = Objective(scorer.space, scorer, Limits(tokens=tokens))
    agent = Evolution(first_tokens=4 * LENGTH, sensitivity_tokens=LENGTH, train_tokens=LENGTH, trainer="full")
    told = nullcontext() if trains else pytest.warns(RuntimeWarning, match="too little for one comparison")
    with told, suppress(LimitReached):
        agent.search(objective, np.random.default_rng(0))
    assert bool(scorer.trained) is trains
    if trains:
        steps = [steps for _, steps in scorer.trained]
        assert steps[-1] == 16, "the last comparison was completed"
    else:
        assert objective.spent.tokens > 0.8 * tokens


def test_who_cannot_train_is_told() -> None:
    scorer = ToyScorer(toy_space())
    with pytest.raises(UserError, match="Leave device_memory, or leave train_tokens"):
        Evolution(train_tokens=LENGTH).search(
            Objective(scorer.space, scorer, Limits(evals=50)), np.random.default_rng(0)
        )


def test_candidates_are_trained_in_one_way() -> None:
    scorer = TrainedToy(toy_space())
    objective = Objective(scorer.space, scorer, Limits())
    objective.training.choose(CandidateTraining("norms"))
    objective.training.choose(CandidateTraining("lora"))
    objective(policies_of(scorer.space, 1), steps=1)
    objective.training.choose(CandidateTraining("lora"))
    with pytest.raises(ValueError, match="after candidates were trained"):
        objective.training.choose(CandidateTraining("norms"))


@pytest.mark.parametrize("trainer", ["refit", "norms", "lora", "full"])
def test_killed_and_resumed_equals_uninterrupted(quick: dict[str, Any], tmp_path: Path, trainer: str) -> None:
    options = {**TRAINS, "trainer": trainer, "train_tokens": 32 if trainer == "refit" else 64}
    options["refit_sequences"] = 4 if trainer == "full" else 0
    config = load_config(None, quick | {"agent_options": options})
    whole = study.start(config, tmp_path / "whole")
    assert whole.spent.training > 0
    assert whole.spent.evals <= 900
    assert read_run(tmp_path / "whole").spent.training == whole.spent.training
    (tmp_path / "whole" / "result.json").rename(tmp_path / "result.json")
    told = read_run(tmp_path / "whole").spent
    assert (told.training, told.tokens <= whole.spent.tokens) == (whole.spent.training, True), "slopes are not told"
    (tmp_path / "result.json").rename(tmp_path / "whole" / "result.json")
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    trained = [number for number, line in enumerate(lines) if '"steps":' in line]
    assert trained
    (tmp_path / "killed").mkdir()
    config.save(tmp_path / "killed" / "config.yaml")
    kept = trained[0] + 2  # within the first stages
    (tmp_path / "killed" / "journal.jsonl").write_text("".join(lines[:kept]) + '{"levels": [1')
    resumed = study.resume(tmp_path / "killed")
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")
    assert resumed.policy.units == whole.policy.units
    assert (resumed.spent.tokens, resumed.spent.training) == (whole.spent.tokens, whole.spent.training)


def test_evopress_has_the_same_stages(quick: dict[str, Any], tmp_path: Path) -> None:
    stages = [[64, 2], [128, 1], [256, 1]]
    options = {**TRAINS, "stages": stages, "offspring": 4, "train_from": 0.0}
    result = autoprune.search(**quick | {"agent": "evopress", "agent_options": options}, out=tmp_path / "run")
    assert result.spent.training > 0
    assert '"steps":1' in (tmp_path / "run" / "journal.jsonl").read_text()


def test_without_train_tokens_nothing_is_trained(quick: dict[str, Any], tmp_path: Path) -> None:
    result = autoprune.search(**quick | {"max_evals": 60}, out=tmp_path / "run")
    assert result.spent.training == 0
    assert '"steps"' not in (tmp_path / "run" / "journal.jsonl").read_text()


def test_a_training_looks_at_the_clock(quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that ends within a training resumes to the same end, and that training is not charged."""
    clock, whole = [0.0], Learner.advance

    def slow(self: Any, steps: int, tick: Any) -> None:
        def later() -> None:
            clock[0] += 100.0
            tick()

        whole(self, steps, later)

    monkeypatch.setattr("autoprune.spending.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(Learner, "advance", slow)
    settings = quick | {"max_evals": None, "max_time": 1050.0, "agent_options": TRAINS}
    result = study.start(load_config(None, settings), tmp_path / "run")
    assert 1000 < result.spent.seconds < 1200
    before = (tmp_path / "run" / "journal.jsonl").read_text()
    assert '"ended"' in before
    again = study.resume(tmp_path / "run")
    assert (tmp_path / "run" / "journal.jsonl").read_text() == before
    assert (again.policy.units, again.spent) == (result.policy.units, result.spent)


def test_a_text_smaller_than_the_stages_is_told(quick: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"train_tokens": 200_000}
    little = "too little for one comparison"
    with (
        pytest.warns(RuntimeWarning, match=little),
        pytest.warns(RuntimeWarning, match="512 in the reconstruction split: the refit reads no more than these"),
    ):
        autoprune.search(**quick | {"agent_options": options, "max_evals": 40}, out=tmp_path / "refit")
    options["trainer"] = "full"
    with (
        pytest.warns(RuntimeWarning, match=little),
        pytest.warns(RuntimeWarning, match="they are read more than once"),
    ):
        autoprune.search(**quick | {"agent_options": options, "max_evals": 40}, out=tmp_path / "full")


@pytest.mark.parametrize("options", [{"trainer": "adam"}, {"train_tokens": -1}, {"trained": 0}, {"train_lr": 0}])
def test_wrong_settings_are_told(quick: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        autoprune.search(**quick | {"agent_options": options}, out=tmp_path / "run")
