"""What `benchmarks/oracle.py` predicts and compares."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def oracle() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("oracle")
        sys.modules.pop("oracle", None)


def test_ranks_are_compared(oracle: Any) -> None:
    assert oracle.spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])) == pytest.approx(1.0)
    assert oracle.spearman(np.array([1.0, 2.0, 3.0]), np.array([0.0, -4.0, -9.0])) == pytest.approx(-1.0)


def test_the_closed_form_is_leaving_one_out(oracle: Any) -> None:
    """But for means and scales, which it takes from all: few of them move those."""
    rng = np.random.default_rng(0)
    seen_PF, weight_F = rng.normal(size=(400, 3)), np.array([1.0, -2.0, 0.5])
    wanted_P = seen_PF @ weight_F + 0.1 * rng.normal(size=400)
    errors = []
    for p in range(400):
        others = np.arange(400) != p
        errors.append(oracle._fitted(seen_PF[others], wanted_P[others], 1.0, seen_PF[[p]])[0] - wanted_P[p])
    assert oracle._left_out(seen_PF, wanted_P, 1.0) == pytest.approx(float(np.mean(np.square(errors))), rel=0.01)


def test_a_predictor_finds_what_is_linear(oracle: Any) -> None:
    rng = np.random.default_rng(0)
    features_PF = rng.normal(size=(30, 4))
    wanted_P = features_PF @ np.array([1.0, -1.0, 0.5, 0.0]) + 0.01 * rng.normal(size=30)
    assert oracle.spearman(oracle.predicted(features_PF, wanted_P), wanted_P) > 0.95


def test_the_report(oracle: Any) -> None:
    rng = np.random.default_rng(0)
    losses = np.sort(rng.uniform(0.5, 2, 40))
    rows = [
        {"loss": x, "validation refitted": 1 + x, "refit, 1T": 0.9 * x, "recovered": 3 + x} for x in losses.tolist()
    ]
    report = oracle.compared(rows, np.log(losses)[:, None])
    assert report["correlations"]["refit, 1T"] == pytest.approx((1.0, 1.0))
    assert set(report["correlations"]) >= {"loss", "predictor", "predictor of the better half"}
    assert report["recovered of the best by"]["loss"] == report["best"]
