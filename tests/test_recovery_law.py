"""The law of recovery: known laws are found again, intervals are honest, and it keeps silent where it knows little."""

import itertools
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autoprune import exporting, training
from autoprune.errors import UserError
from autoprune.fine_tuned import Finetuned, forecast_told
from autoprune.policy import Policy
from autoprune.recovery import finetuning
from autoprune.recovery.forecasting import law_of, law_of_losses, record_of
from autoprune.recovery.law import Law, counted, fit_law
from autoprune.result_file import load_result
from autoprune.task_choice import built_in
from autoprune.tasks.text_training import DEFAULTS, TextTraining
from autoprune.training.curve import CURVE, first_point, is_due, read_curve
from autoprune.training.loop import Trained, rate

PLACES = [0, *(round(1000 * 2 ** (i / 2)) for i in range(9))]
"""Tokens at which a training is measured: the start, and 1,000 to 16,000."""


def loss_at(tokens: float, floor: float = 2.5, gain: float = 1.2, scale: float = 3000, power: float = 0.6) -> float:
    return float(floor + gain * (1 + tokens / scale) ** -power)


def law_with(noise: float, seed: int, **own: float) -> Law:
    rng = np.random.default_rng(seed)
    points = [(at, loss_at(at, **own) + noise * rng.normal()) for at in PLACES]
    law = fit_law(points, 16_000, 16_000)
    assert law is not None
    return law


# -- known laws ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "own", [{}, {"power": 1.5}, {"power": 0.2, "gain": 4.0}, {"scale": 300.0, "floor": 0.1}, {"scale": 20_000.0}]
)
def test_a_known_law_is_found_again(own: dict[str, float]) -> None:
    law = law_with(0, 0, **own)
    known = {"floor": 2.5, "gain": 1.2, "scale": 3000, "power": 0.6} | own
    for times in (2, 4):
        ahead = law.forecast(times)
        assert ahead.tokens == times * 16_000
        assert ahead.loss == pytest.approx(loss_at(times * 16_000, **own), abs=2e-3)
        assert ahead.low <= ahead.loss <= ahead.high
        assert ahead.high - ahead.low < 0.02
    assert law.missed < 2e-3
    if not own:
        assert (law.floor, law.gain) == pytest.approx((known["floor"], known["gain"]), abs=5e-3)
        assert (law.scale, law.power) == pytest.approx((known["scale"], known["power"]), rel=0.02)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 60 noisy trainings at least 90 % have the loss at twice and at four times the tokens in their intervals."""
    inside = {2: 0, 4: 0}
    for seed in range(60):
        law = law_with(0.01, seed)
        for times in inside:
            ahead = law.forecast(times)
            inside[times] += ahead.low <= loss_at(times * 16_000) <= ahead.high
    assert min(inside.values()) >= 54


def test_more_noise_and_more_distance_are_less_sure() -> None:
    def width(noise: float, times: float) -> float:
        found = [law_with(noise, seed).forecast(times) for seed in range(8)]
        return float(np.mean([one.high - one.low for one in found]))

    assert width(0.001, 2) < width(0.01, 2) < width(0.01, 4)


# -- too little ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "places",
    [
        PLACES[:6],  # too few
        PLACES[1:],  # without the start
        [0, *(1000 + 100 * i for i in range(9))],  # too close
        [0, *(8000 + 1000 * i for i in range(9))],  # none in the first half
    ],
)
def test_nothing_is_said_of_too_few_points(places: list[int]) -> None:
    assert fit_law([(at, loss_at(at)) for at in places], 16_000, 16_000) is None


def test_nothing_is_said_of_a_loss_that_did_not_fall() -> None:
    assert fit_law([(at, 3.0) for at in PLACES], 16_000, 16_000) is None
    assert fit_law([(at, 3.0 + at / 1e5) for at in PLACES], 16_000, 16_000) is None
    assert fit_law([(at, np.nan) for at in PLACES], 16_000, 16_000) is None
    assert record_of(None) is None
    assert forecast_told(None, built_in()["text"]) is None


# -- a training ------------------------------------------------------------------------------------------------------


def test_tokens_count_by_the_root_of_their_rate() -> None:
    assert counted([0.25, 1, 0.25, 0], 10) == [0, 5, 15, 20, 20]
    planned = 128
    known = counted([rate(step, planned, 0.1) for step in range(planned)], 100)
    losses = {0: loss_at(0)} | {step: loss_at(known[step]) for step in (4, 6, 8, 12, 16, 23, 32, 46, 64, 91, 128)}
    law = law_of_losses(losses, planned, 0.1, 100)
    assert law is not None
    ahead = law.forecast(2)  # of a schedule that is twice as long, in which tokens count the same share
    assert ahead.tokens == 2 * 128 * 100
    twice = counted([rate(step, 2 * planned, 0.1) for step in range(2 * planned)], 100)[-1]
    assert ahead.loss == pytest.approx(loss_at(twice), abs=3e-3)


def test_points_are_even_in_the_logarithm_and_cost_no_more_than_their_share() -> None:
    settings = training.settings_of(DEFAULTS, {"max_steps": 1000, "batch": 8, "law": 0.1})
    first = first_point(SimpleNamespace(count=500, validation_count=16), settings)  # type: ignore[arg-type]
    assert first is not None
    due = [step for step in range(1, 1000) if is_due(step, first)]
    assert due[0] == first
    assert all(1.38 < b / a < 1.45 for a, b in itertools.pairwise(due))
    assert len(due) * 2 * 16 <= 0.1 * 4 * 8 * 1000
    assert [step for step in range(1, 20) if is_due(step, 1)] == [1, 2, 3, 4, 6, 8, 12, 16]
    none = training.settings_of(DEFAULTS, {"max_steps": 1000, "law": 0})
    assert first_point(SimpleNamespace(count=500, validation_count=16), none) is None  # type: ignore[arg-type]
    assert first_point(SimpleNamespace(count=500, validation_count=0), settings) is None  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def opened(finished_run: Path) -> tuple[Any, Any, TextTraining]:
    assembly, policy = exporting.reopen(finished_run)
    splits = assembly.splits
    return assembly, policy, TextTraining(assembly.view, splits.reconstruction, splits.validation[:2])


def test_measuring_changes_no_bit_of_the_training_and_goes_on_after_a_stop(
    opened: tuple[Any, Any, TextTraining], tmp_path: Path
) -> None:
    assembly, policy, examples = opened
    settings, silent = (training.settings_of(DEFAULTS, {"epochs": 4, "batch": 4, "law": share}) for share in (1.0, 0.0))
    networks = [finetuning.cut_out(assembly, policy) for _ in range(3)]
    training.train(networks[0], examples, settings, tmp_path / "measured")
    training.train(networks[1], examples, silent, tmp_path / "silent")
    assert read_curve(tmp_path / "silent") == {}
    losses = read_curve(tmp_path / "measured")
    assert list(losses) == [step for step in range(1, 17) if is_due(step, first_point(examples, settings))]
    assert len(losses) >= 5

    def stop(stage: str, share: float) -> None:
        if share >= 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(networks[2], examples, settings, tmp_path / "again", stop)
    networks[2] = finetuning.cut_out(assembly, policy)
    training.train(networks[2], examples, settings, tmp_path / "again")
    assert read_curve(tmp_path / "again") == losses
    states = [network.state_dict() for network in networks]
    assert all(bool((states[0][name] == other[name]).all()) for other in states[1:] for name in other)


def test_a_law_of_a_real_training_predicts_its_own_second_half(
    opened: tuple[Any, Any, TextTraining], tmp_path: Path
) -> None:
    assembly, policy, examples = opened
    student = finetuning.cut_out(assembly, policy)
    settings = training.settings_of(DEFAULTS, {"max_steps": 64, "batch": 4, "law": 1.0, "lr": 1e-3, "weight": 0.0})
    start = examples.measured(student).loss
    trained = training.train(student, examples, settings, tmp_path)
    end = examples.measured(student).loss
    law = law_of(tmp_path, examples, settings, trained, start, end)
    assert law is not None
    assert law.missed < (start - end) / 3
    cut = law_of(tmp_path, examples, settings, Trained(3, 64, 1, 1.0), start, end)
    assert cut is None  # three steps are too few
    assert law_of(tmp_path, examples, settings, Trained(64, None, 1, 1.0), start, end) is None  # time alone ended it
    (tmp_path / CURVE).write_text("half of it")
    with pytest.warns(RuntimeWarning, match="nothing is said of more tokens"):
        assert law_of(tmp_path, examples, settings, trained, start, end) is None


# -- what is told ----------------------------------------------------------------------------------------------------


def test_the_sentence() -> None:
    told = forecast_told(record_of(law_with(0.002, 1)), built_in()["text"])
    assert told is not None
    number = r"[23]\.\d{4}"
    assert re.fullmatch(
        rf"By the law of this training more of such data would give the cross-entropy: with 2 times the tokens "
        rf"\(32,000\) {number} \({number} to {number}\), with 4 times the tokens \(64,000\) {number} \({number} to "
        rf"{number}\)\. The law of its first half missed the rest by up to 0\.0\d+\.",
        told,
    ), told


@pytest.mark.filterwarnings("ignore:.*made it worse.*:RuntimeWarning")
def test_the_command_tells_the_table_and_the_law(cli: Any, finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    answer = cli("finetune", run, "--max-steps", "48", "--batch", "8", "law=1", "lr=1e-3", "labels=1")
    assert answer.status == 0, answer.err
    rows = {line.split()[0]: line for line in answer.out.splitlines()}
    assert list(rows) == ["dense", "uniform", "found", "refitted", "recovered", "trained:", "ahead:", "network:"]
    policy = Policy.load(run / "policy.json")
    uniform = policy.losses["validation"]["uniform"]
    assert f"cross-entropy {uniform['ce']:.4f}" in rows["uniform"]
    assert f"loss (kl) {uniform['loss']:.4f}" in rows["uniform"]
    told = json.loads((run / "finetuned" / "result.json").read_text())
    done = Finetuned.model_validate(told)
    assert list(done.rows) == ["dense", "uniform", "found", "refitted", "recovered"]
    assert done.law is not None
    assert [one.times for one in done.law.forecasts] == [2, 4]
    result = load_result(run)
    assert result.recovered == done
    assert "recovered" in repr(result)
    assert "After fine-tuning" in result._repr_html_()
    card = (run / "finetuned" / "network" / "README.md").read_text(encoding="utf-8")
    assert "| uniform |" in card
    assert "By the law of this training" in card
    page = cli("report", run)
    assert page.status == 0
    assert "By the law of this training" in (run / "report.html").read_text(encoding="utf-8")
    assert "By the law" in " ".join(cli("show", run).out.split())
    (run / "finetuned" / "result.json").write_text("{")
    assert "recovered" not in repr(load_result(run))
    with pytest.raises(UserError, match="is damaged"):
        _ = load_result(run).recovered
