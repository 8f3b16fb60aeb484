"""Candidates trained before they are compared: what is dropped stays dropped, and the live network is left alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune import study
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.ports.candidate_training import TRAINERS, CandidateTraining, Trainer
from autoprune.training import candidate
from autoprune.training.candidate import CandidateTrainer

STEPS = 6


@pytest.fixture(scope="module", params=["text", "images"])
def assembly(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    if request.param == "images":
        pytest.importorskip("sklearn")
        return assemble(load_config(None, {"model": "tiny-cnn", "budgets": {"macs": 0.5}, "max_evals": 10}))
    return assemble(load_config(None, request.getfixturevalue("quick_settings")))


@pytest.fixture(scope="module")
def quick_settings(tiny_model: str, text_file: str) -> dict[str, Any]:
    from tests.conftest import QUICK

    return {**QUICK, "model": tiny_model, "data": text_file, "budgets": {"params": 0.5}}


TRAINED = {trainer: CandidateTraining(trainer, lr=1e-3 if trainer == "norms" else None) for trainer in TRAINERS}


class Counted:
    """Counts steps."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


def scorer_of(assembly: Assembly, trainer: Trainer = "full") -> Evaluator:
    scorer = assembly.evaluator(assembly.splits.search, assembly.config.loss)
    return scorer.with_training(TRAINED[trainer], lambda: None)


def test_training_lowers_the_loss_and_leaves_the_live_network(assembly: Assembly) -> None:
    scorer, policy = scorer_of(assembly), assembly.space.uniform()
    before = {name: tensor.clone() for name, tensor in assembly.view.model.state_dict().items()}
    plain_1S = scorer.score([policy], range(4))
    trained_1S = scorer.score_trained([policy], range(4), STEPS)
    assert trained_1S.mean() < plain_1S.mean()
    assert np.array_equal(scorer.score([policy], range(4)), plain_1S)
    assert np.array_equal(scorer.score_trained([policy], range(4), STEPS), trained_1S), (
        "the same request, the same losses"
    )
    after = assembly.view.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_no_steps_are_the_levels_themselves(assembly: Assembly) -> None:
    scorer, policy = scorer_of(assembly), assembly.space.uniform()
    assert scorer._trainer is not None
    with scorer._trainer.in_place(policy, 0):
        tokens_NT = assembly.splits.search[:2].to(assembly.config.device)
        hidden = assembly.view.embed(tokens_NT)
        for block in range(len(assembly.view.blocks)):
            hidden = assembly.view.run(block, hidden)
    assembly.placer.place(policy)
    wanted = assembly.view.embed(tokens_NT)
    for block in range(len(assembly.view.blocks)):
        wanted = assembly.view.run(block, wanted)
    assembly.placer.release()
    assert torch.allclose(hidden, wanted, atol=1e-5)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_what_is_dropped_stays_dropped(assembly: Assembly, monkeypatch: pytest.MonkeyPatch, trainer: Trainer) -> None:
    """The shapes of the trained network are those of the cut one: nothing is masked, so nothing can grow back."""
    shapes: list[dict[str, torch.Size]] = []
    whole = CandidateTrainer._trained

    def looked_at(self: Any, policy: Any, steps: int) -> Any:
        shapes.append({name: p.shape for name, p in candidate.cut_out(self._placer, policy).named_parameters()})
        trained = dict(whole(self, policy, steps))
        shapes.append({name: p.shape for name, p in trained.items() if name in shapes[0]})
        return trained.items()

    monkeypatch.setattr(CandidateTrainer, "_trained", looked_at)
    scorer_of(assembly, trainer).score_trained([assembly.space.sparsest], range(1), 2)
    before, after = shapes
    assert before == after
    dense = {name: p.shape for name, p in assembly.view.model.named_parameters()}
    assert sum(map(np.prod, after.values())) < sum(map(np.prod, dense.values()))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_changes_the_loss_and_leaves_the_live_network(assembly: Assembly, trainer: Trainer) -> None:
    scorer, policy = scorer_of(assembly, trainer), assembly.space.uniform()
    assembly.placer.release()
    before = {name: tensor.clone() for name, tensor in assembly.view.model.state_dict().items()}
    every = range(scorer.n_sequences)
    plain, trained = scorer.score([policy], every), scorer.score_trained([policy], every, 8)
    assert np.isfinite(trained).all()
    assert (trained != plain).all()
    assert trained.mean() < 1.1 * plain.mean() or trainer == "lora", "adapters learn the text of a random network"
    assert np.array_equal(scorer.score([policy], every), plain)
    assembly.placer.release()
    after = assembly.view.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("trainer", ["norms", "lora", "full"])
def test_training_goes_on_where_it_stopped(assembly: Assembly, trainer: Trainer) -> None:
    """To the bit: however often it stopped, and whether its state is still there."""
    policy, other = assembly.space.uniform(), assembly.space.sparsest
    stopped, at_once = scorer_of(assembly, trainer), scorer_of(assembly, trainer)
    steps = [Counted() for _ in range(2)]
    stopped, at_once = (
        one.with_training(TRAINED[trainer], count) for one, count in zip((stopped, at_once), steps, strict=True)
    )
    for taken in (1, 2):
        stopped.score_trained([policy], range(2), taken)
    stopped.score_trained([other], range(2), 1)
    found = stopped.score_trained([policy], range(2), STEPS)
    assert np.array_equal(found, at_once.score_trained([policy], range(2), STEPS))
    nothing_left = trainer == "lora" and assembly.task.name == "text"
    assert [one.count for one in steps] == [STEPS + (not nothing_left), STEPS]


def test_a_refit_comes_before_the_first_step_and_is_charged(assembly: Assembly) -> None:
    plain = scorer_of(assembly)
    refitted = plain.with_training(CandidateTraining(refit_sequences=4), lambda: None)
    each = plain.step_passes
    assert plain.training_passes(0, 3) == 3 * each
    assert refitted.training_passes(0, 3) == 3 * each + 4 * candidate.REFIT_PASSES
    assert refitted.training_passes(1, 3) == 2 * each
    policy = assembly.space.uniform()
    one, other = (scorer.score_trained([policy], range(4), 1) for scorer in (plain, refitted))
    assert not np.array_equal(one, other)


def test_a_training_that_diverges_fails_its_candidate(assembly: Assembly) -> None:
    scorer = scorer_of(assembly).with_training(CandidateTraining(lr=1e30), lambda: None)
    assert np.isinf(scorer.score_trained([assembly.space.uniform()], range(2), STEPS)).all()
    assert np.isfinite(scorer.score([assembly.space.uniform()], range(2))).all()


def test_too_little_memory_names_a_trainer_that_fits(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, policy = scorer_of(assembly), assembly.space.uniform()
    assert scorer._trainer is not None
    needs = scorer._trainer._needs(candidate.cut_out(assembly.placer, policy))
    assert needs["refit"] < needs["full"]
    assert needs["norms"] < needs["full"]
    monkeypatch.setattr(candidate, "free_bytes", lambda device: needs["full"] - 1)
    with pytest.raises(UserError, match=r"trainer=full needs about .* take trainer="):
        scorer.score_trained([policy], range(1), 1)
    monkeypatch.setattr(candidate, "free_bytes", lambda device: 10)
    with pytest.raises(UserError, match="no trainer fits"):
        scorer.score_trained([policy], range(1), 1)


def test_candidates_learn_from_neither_search_nor_validation(assembly: Assembly) -> None:
    all_of_it, apart = assembly.task.training(assembly), assembly.task.training(assembly, candidates=True)
    assert apart.count < all_of_it.count


def test_an_agent_compares_after_training(quick_settings: dict[str, Any], tmp_path: Path) -> None:
    agent = tmp_path / "trains.py"
    agent.write_text(
        "class Trains:\n"
        "    def search(self, objective, rng):\n"
        "        policies = [objective.space.sample(rng) for _ in range(4)]\n"
        "        losses = objective(policies)\n"
        "        survivors = [policies[i] for i in losses.argsort()[:2]]\n"
        "        objective(survivors, steps=2)\n"
    )
    config = load_config(None, quick_settings | {"agent": f"{agent}:Trains", "max_evals": 4000})
    result = study.start(config, tmp_path / "run")
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    assert sum('"steps":2' in line for line in lines) == 2
    assert result.spent.evals > 4 + 2 * 2 * 3
    again = study.resume(tmp_path / "run")
    assert (again.policy.units, again.spent.tokens) == (result.policy.units, result.spent.tokens)
