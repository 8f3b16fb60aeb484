"""Candidates trained before they are compared: what is dropped stays dropped, and the live network is left alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune import study
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.evaluation.evaluator import Evaluator
from autoprune.training import candidate
from autoprune.training.loop import train

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


def scorer_of(assembly: Assembly) -> Evaluator:
    return assembly.evaluator(assembly.splits.search, assembly.config.loss)


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


def test_what_is_dropped_stays_dropped(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes of the trained network are those of the cut one: nothing is masked, so nothing can grow back."""
    shapes: list[dict[str, torch.Size]] = []
    whole = train

    def looked_at(student: Any, *args: Any) -> Any:
        shapes.append({name: p.shape for name, p in student.named_parameters()})
        done = whole(student, *args)
        shapes.append({name: p.shape for name, p in student.named_parameters()})
        return done

    monkeypatch.setattr(candidate, "train", looked_at)
    scorer_of(assembly).score_trained([assembly.space.sparsest], range(1), 2)
    before, after = shapes
    assert before == after
    dense = {name: p.shape for name, p in assembly.view.model.named_parameters()}
    assert sum(map(np.prod, after.values())) < sum(map(np.prod, dense.values()))


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
