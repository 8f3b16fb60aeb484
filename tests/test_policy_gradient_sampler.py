"""The sampler learns, does the same after it was killed, and takes whatever an Optuna study may hold."""

import math
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import FrozenTrial, Trial, TrialState

from autoprune.agents.choice_probabilities import at_least, entropy_gradient, softmax
from autoprune.agents.policy_gradient_sampler import Baseline, PolicyGradientSampler

WEIGHT_N = np.random.default_rng(7).normal(size=32)
TARGET_M = np.random.default_rng(8).integers(0, 6, 12)
Params = list[dict[str, Any]]
Objective = Callable[[Trial], float]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def bits(trial: Trial) -> float:
    """Minimum: the bits of the negative weights; 0."""
    x_N = np.array([trial.suggest_categorical(f"b{i}", [0, 1]) for i in range(len(WEIGHT_N))])
    return float(WEIGHT_N @ x_N - WEIGHT_N[WEIGHT_N < 0].sum())


def integers(trial: Trial) -> float:
    """Minimum: the target; 0. One of the integers has steps, one is log."""
    x_M = [trial.suggest_int(f"i{i}", 0, 5) for i in range(10)]
    x_M += [trial.suggest_int("stepped", 0, 10, step=2) // 2, trial.suggest_int("log", 1, 6, log=True) - 1]
    return float(np.abs(np.array(x_M) - TARGET_M).sum())


def study_of(sampler: BaseSampler, direction: str = "minimize", storage: BaseStorage | None = None) -> optuna.Study:
    return optuna.create_study(
        sampler=sampler, direction=direction, storage=storage, study_name="one", load_if_exists=True
    )


def params(study: optuna.Study) -> Params:
    return [trial.params for trial in study.get_trials(deepcopy=False)]


def optimized(sampler: BaseSampler, objective: Objective, trials: int, direction: str = "minimize") -> optuna.Study:
    study = study_of(sampler, direction)
    study.optimize(objective, n_trials=trials)
    return study


# -- learning ----------------------------------------------------------------------------------------------------


def best(make: Callable[[int], BaseSampler], objective: Objective, trials: int) -> list[float]:
    return [optimized(make(seed), objective, trials).best_value for seed in range(3)]


@pytest.fixture(scope="module")
def random_bits() -> float:
    return min(best(lambda seed: RandomSampler(seed=seed), bits, 200))


@pytest.fixture(scope="module")
def random_integers() -> float:
    return min(best(lambda seed: RandomSampler(seed=seed), integers, 200))


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("baseline", ["leave-one-out", "moving-average"])
def test_finds_the_optimum_of_a_linear_function(baseline: Baseline, natural: bool, random_bits: float) -> None:
    losses = best(lambda seed: PolicyGradientSampler(seed=seed, baseline=baseline, natural=natural), bits, 200)
    assert max(losses) < (0.1 if baseline == "leave-one-out" else 0.3) * random_bits


@pytest.mark.parametrize("natural", [False, True])
def test_solves_integers_better_than_random(natural: bool, random_integers: float) -> None:
    losses = best(lambda seed: PolicyGradientSampler(seed=seed, natural=natural), integers, 200)
    assert max(losses) < 0.6 * random_integers


def test_mode_and_probabilities_show_what_was_learned() -> None:
    sampler = PolicyGradientSampler(seed=0)
    optimized(sampler, bits, 400)
    wrong = [i for i, weight in enumerate(WEIGHT_N) if sampler.mode()[f"b{i}"] != int(weight < 0)]
    assert all(abs(WEIGHT_N[i]) < 0.3 for i in wrong)
    strongest = int(np.abs(WEIGHT_N).argmax())
    p_K = sampler.probabilities(f"b{strongest}")
    assert p_K[int(WEIGHT_N[strongest] < 0)] > 0.95
    p_K[:] = 0
    assert sampler.probabilities(f"b{strongest}").sum() == pytest.approx(1)
    with pytest.raises(KeyError, match="no parameter 'b99' among the 32"):
        sampler.probabilities("b99")


@pytest.mark.parametrize("baseline", ["leave-one-out", "moving-average"])
def test_maximising_is_minimising_the_negative(baseline: Baseline) -> None:
    low = optimized(PolicyGradientSampler(seed=3, baseline=baseline), bits, 60)
    high = optimized(PolicyGradientSampler(seed=3, baseline=baseline), lambda trial: -bits(trial), 60, "maximize")
    assert params(low) == params(high)


@pytest.mark.parametrize("baseline", ["leave-one-out", "moving-average"])
def test_the_scale_of_the_objective_does_not_matter(baseline: Baseline) -> None:
    small = optimized(PolicyGradientSampler(seed=3, baseline=baseline), bits, 60)
    large = optimized(PolicyGradientSampler(seed=3, baseline=baseline), lambda trial: 1000 * bits(trial), 60)
    assert params(small) == params(large)


def test_a_constant_objective_teaches_nothing() -> None:
    sampler = PolicyGradientSampler(seed=0)
    optimized(sampler, lambda trial: 0 * bits(trial) + 0.1, 32)
    assert sampler.probabilities("b0") == pytest.approx([0.5, 0.5])


def test_initial_logits_are_what_is_sampled_first() -> None:
    initial = {"a": [0.0, math.log(3)], "b": [2.0, 0.0, 0.0]}
    sampler = PolicyGradientSampler(seed=0, initial=initial, learning_rate=0.0)
    study = optimized(
        sampler, lambda trial: trial.suggest_int("a", 0, 1) + trial.suggest_categorical("b", [1, 2, 3]), 400
    )
    counts = np.array([[each["a"] == 1, each["b"] == 1] for each in params(study)]).mean(axis=0)
    expected = [0.75, math.exp(2) / (math.exp(2) + 2)]
    assert counts == pytest.approx(expected, abs=0.07)
    assert [sampler.probabilities("a")[1], sampler.probabilities("b")[0]] == pytest.approx(expected)


def test_entropy_keeps_choices_open() -> None:
    narrow, wide = PolicyGradientSampler(seed=0), PolicyGradientSampler(seed=0, entropy=1.0)
    for sampler in (narrow, wide):
        optimized(sampler, bits, 200)

    def sure(sampler: PolicyGradientSampler) -> float:
        return float(np.mean([sampler.probabilities(f"b{i}").max() for i in range(32)]))

    assert sure(wide) < sure(narrow) - 0.05


# -- resuming and sharing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("where", ["memory", "journal"])
@pytest.mark.parametrize(
    "options", [{}, {"natural": True, "entropy": 0.1}, {"baseline": "moving-average", "batch": 3, "floor": 0.2}]
)
def test_killed_and_resumed_equals_uninterrupted(
    options: dict[str, Any], where: str, static: bool, tmp_path: Path
) -> None:
    space: dict[str, BaseDistribution] = {f"i{i}": IntDistribution(0, 5) for i in range(10)}

    def sampler() -> PolicyGradientSampler:
        return PolicyGradientSampler(seed=5, search_space=space if static else None, **options)

    whole = optimized(sampler(), awkward, 36)
    in_memory = InMemoryStorage()
    for stop in (3, 16, 18, 36):  # within a batch and at its end
        storage = in_memory if where == "memory" else JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
        study = study_of(sampler(), storage=storage)
        study.optimize(awkward, n_trials=stop - len(study.get_trials(deepcopy=False)), catch=ArithmeticError)
    assert params(study) == params(whole)


def awkward(trial: Trial) -> float:
    """Integers, a float, a parameter that half of the trials have, pruned and infinite trials."""
    loss = integers(trial) + trial.suggest_float("float", 0.1, 1, log=True)
    if trial.params["i0"] % 2:
        loss += trial.suggest_categorical("sometimes", ["a", "b", None]) is None
    if trial.number % 11 == 4:
        raise optuna.TrialPruned
    return math.inf if trial.number % 13 == 5 else loss


class Counting(PolicyGradientSampler):
    """Knows what it has learned from."""

    def __init__(self, **options: Any) -> None:
        self.counted: list[int] = []
        super().__init__(**options)

    def _count(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self.counted.append(trial.number)
        super()._count(study, trial, state, values)


def test_processes_that_share_a_study_learn_every_trial_once(tmp_path: Path) -> None:
    samplers = [Counting(seed=seed, batch=4) for seed in range(2)]
    studies = [
        study_of(sampler, storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal")))) for sampler in samplers
    ]
    for i in range(30):
        studies[i % 3 % 2].optimize(bits, n_trials=1)
    studies[0].add_trial(studies[1].trials[0])  # a copy: a trial of its own
    for study in studies:
        study.optimize(bits, n_trials=1)
    studies[0].optimize(bits, n_trials=1)
    assert sorted(samplers[0].counted) == list(range(34))
    assert sorted(samplers[1].counted) == list(range(33))


def test_a_sampler_moves_to_another_study() -> None:
    sampler = PolicyGradientSampler(seed=0)
    optimized(sampler, bits, 100)
    study = optuna.create_study(sampler=sampler)
    study.optimize(bits, n_trials=20)
    assert params(study) == params(optimized(PolicyGradientSampler(seed=0), bits, 20))


def test_a_pickled_sampler_goes_on() -> None:
    whole = optimized(PolicyGradientSampler(seed=0), bits, 40)
    study = optimized(PolicyGradientSampler(seed=0), bits, 20)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(bits, n_trials=20)
    assert params(study) == params(whole)


def test_without_a_seed_samplers_differ_and_reseeding_changes_draws() -> None:
    first, second = (params(optimized(PolicyGradientSampler(), bits, 3)) for _ in range(2))
    assert first != second
    sampler = PolicyGradientSampler(seed=0)
    sampler.reseed_rng()
    assert params(optimized(sampler, bits, 3)) != params(optimized(PolicyGradientSampler(seed=0), bits, 3))


# -- what a study may hold ---------------------------------------------------------------------------------------


def test_asks_and_tells_in_batches_of_many_parameters() -> None:
    names = [f"x{i}" for i in range(1000)]
    space: dict[str, BaseDistribution] = {name: CategoricalDistribution([False, True]) for name in names}
    sampler = Counting(seed=0, search_space=space)
    study = study_of(sampler, "maximize")
    means = []
    for _ in range(3):
        trials = [study.ask(space) for _ in range(16)]
        values = [float(sum(trial.params.values())) for trial in trials]
        means.append(np.mean(values))
        for trial, value in zip(trials, values, strict=True):
            study.tell(trial, value)
    assert means[0] < means[1] < means[2]
    assert sampler.counted == list(range(48))
    assert sampler.probabilities("x999").sum() == pytest.approx(1)


def test_pruned_failed_nan_and_infinite_trials() -> None:
    def objective(trial: Trial) -> float:
        good = trial.suggest_categorical("x", ["good", "pruned", "raises", "nan", "inf"]) == "good"
        kind = trial.params["x"]
        trial.report(-100.0, 0)  # looks better than anything that is finished
        if kind == "pruned":
            raise optuna.TrialPruned
        if kind == "raises":
            raise ArithmeticError
        return trial.suggest_int("y", 0, 3) if good else math.nan if kind == "nan" else math.inf

    sampler = PolicyGradientSampler(seed=0, learning_rate=1.0)
    study = study_of(sampler)
    study.optimize(objective, n_trials=400, catch=ArithmeticError)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    good, pruned, *_, infinite = sampler.probabilities("x")
    assert good > 0.5 > 0.1 > max(pruned, infinite)
    assert sampler.mode()["y"] == 0


def test_a_batch_without_a_finite_value_teaches_nothing() -> None:
    sampler = PolicyGradientSampler(seed=0)
    optimized(sampler, lambda trial: math.inf * (1 + trial.suggest_int("x", 0, 1)), 20)
    assert sampler.probabilities("x") == pytest.approx([0.5, 0.5])


def test_floats_and_wide_integers_are_drawn_at_random() -> None:
    def objective(trial: Trial) -> float:
        trial.suggest_float("stepped", 0, 1, step=0.25)
        return trial.suggest_float("f", 1e-3, 1, log=True) + trial.suggest_int("wide", 0, 10**9) + bits(trial)

    sampler = PolicyGradientSampler(seed=0)
    study = optimized(sampler, objective, 40)
    assert len({each["f"] for each in params(study)}) == len({each["wide"] for each in params(study)}) == 40
    assert set(sampler.mode()) == {f"b{i}" for i in range(32)}
    space: dict[str, BaseDistribution] = {"f": FloatDistribution(0, 1), "b": IntDistribution(0, 3)}
    static = PolicyGradientSampler(seed=0, search_space=space)
    trial = study_of(static).ask(space)
    assert set(trial.relative_params) == {"b"}


def test_ranges_that_change_are_learned_apart() -> None:
    sampler = PolicyGradientSampler(seed=0)
    study = optimized(sampler, lambda trial: trial.suggest_int("x", 0, 2 + trial.number % 2), 200)
    assert {each["x"] for each in params(study)} == {0, 1, 2, 3}
    assert sampler.mode() == {"x": 0}
    assert len(sampler.probabilities("x")) in (3, 4)


def test_enqueued_trials_are_learned_from_but_for_values_out_of_range() -> None:
    sampler = Counting(seed=0, batch=2)
    study = study_of(sampler)
    study.enqueue_trial({"x": 1, "y": 7})
    study.enqueue_trial({"x": 0, "y": 0})
    with pytest.warns(UserWarning, match="out of range"):
        study.optimize(lambda trial: trial.suggest_int("x", 0, 1) + trial.suggest_int("y", 0, 3), n_trials=2)
    assert sampler.probabilities("x")[0] > 0.5
    assert sampler.probabilities("y")[0] > 0.25


def test_threads_and_hyperband() -> None:
    sampler = Counting(seed=0)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=4))

    def objective(trial: Trial) -> float:
        loss = bits(trial)
        for step in range(4):
            trial.report(loss + 4 - step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    study.optimize(objective, n_trials=40, n_jobs=2)
    assert len(set(sampler.counted)) == len(sampler.counted) == 40


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=PolicyGradientSampler(seed=0))
    with pytest.raises(ValueError, match="one objective; this one has 2"):
        study.optimize(lambda trial: (trial.suggest_int("x", 0, 1), 0), n_trials=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 1}, "batch must be 2 or more with the baseline leave-one-out, not 1"),
        ({"batch": 0, "baseline": "moving-average"}, "batch must be 1 or more with the baseline moving-average, not 0"),
        ({"baseline": "median"}, "baseline must be one of leave-one-out, moving-average, not 'median'"),
        ({"learning_rate": -0.1}, "learning_rate must be 0 or more and finite, not -0.1"),
        ({"learning_rate": math.nan}, "learning_rate must be 0 or more and finite, not nan"),
        ({"entropy": -1.0}, "entropy must be 0 or more and finite, not -1.0"),
        ({"seed": -3}, "seed must be 0 or more and finite, not -3"),
        ({"floor": 1.0}, "floor must be from 0 to below 1, not 1.0"),
        (
            {"initial": {"x": [0.0, 1.0, 2.0]}, "search_space": {"x": IntDistribution(0, 1)}},
            r"initial\['x'\] has 3 logits, but 'x' has 2 choices",
        ),
        (
            {"initial": {"x": [0.0, math.inf]}, "search_space": {"x": IntDistribution(0, 1)}},
            r"initial\['x'\] must be finite, not \[0.0, inf\]",
        ),
        (
            {"initial": {"z": [0.0, 1.0]}, "search_space": {"x": IntDistribution(0, 1)}},
            "initial has logits of 'z', which is not in search_space",
        ),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyGradientSampler(**options)


def test_initial_logits_of_the_wrong_length_are_found_at_the_first_draw() -> None:
    study = study_of(PolicyGradientSampler(seed=0, initial={"x": [1.0]}))
    with pytest.raises(ValueError, match=r"initial\['x'\] has 1 logits, but 'x' has 4 choices"):
        study.optimize(lambda trial: trial.suggest_int("x", 0, 3), n_trials=1)


class TestOptunaContract(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """What Optuna asks of every sampler of one objective."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return PolicyGradientSampler


# -- numbers -----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    values=st.lists(st.floats(allow_nan=False), min_size=4, max_size=12),
    rate=st.floats(0, 1e3),
    floor=st.floats(0, 0.99),
    entropy=st.floats(0, 10),
    natural=st.booleans(),
    baseline=st.sampled_from(["leave-one-out", "moving-average"]),
)
def test_probabilities_stay_a_distribution_above_the_floor(
    values: list[float], rate: float, floor: float, entropy: float, natural: bool, baseline: Baseline
) -> None:
    space: dict[str, BaseDistribution] = {"two": IntDistribution(0, 1), "five": CategoricalDistribution([*"abcde"])}
    sampler = PolicyGradientSampler(
        seed=0, batch=2, learning_rate=rate, floor=floor, entropy=entropy, natural=natural, baseline=baseline,
        search_space=space, initial={"two": [0, 30.0]},
    )  # fmt: skip
    study = optuna.create_study(sampler=sampler)
    for value in values:
        study.tell(study.ask(space), value)
        for name, choices in (("two", 2), ("five", 5)):
            p_K = sampler.probabilities(name)
            assert p_K.shape == (choices,)
            assert p_K.sum() == pytest.approx(1)
            assert p_K.min() >= floor / choices - 1e-12
            assert p_K.min() > 0


def test_the_floor_leaves_what_holds_it() -> None:
    p_MK = np.array([[0.3, 0.7, 0.0], [0.1, 0.1, 0.8], [-0.2, 0.4, 0.8]])
    raised_MK = at_least(0.3, p_MK, np.array([2, 3, 3]))
    assert raised_MK[:2] == pytest.approx(p_MK[:2])
    assert raised_MK[2, 0] == pytest.approx(0.1)
    assert raised_MK.sum(axis=1) == pytest.approx(1)


def test_entropy_gradient_is_the_derivative() -> None:
    logits_K = np.array([0.3, -1.0, 2.0])

    def entropy(logits_K: np.ndarray) -> float:
        p_K = softmax(logits_K)
        return float(-(p_K * np.log(p_K)).sum())

    numeric_K = [(entropy(logits_K + 1e-6 * e_K) - entropy(logits_K - 1e-6 * e_K)) / 2e-6 for e_K in np.eye(3)]
    p_MK = softmax(logits_K[None])
    assert entropy_gradient(p_MK, np.log(p_MK))[0] == pytest.approx(numeric_K, abs=1e-6)


def test_the_natural_step_is_the_plain_gradient_through_the_inverse_fisher_matrix() -> None:
    """To first order in the step: F⁺ g in the logits moves p by F F⁺ g = g."""
    p_K, g_K = np.array([0.2, 0.5, 0.3]), np.array([0.3, -0.1, -0.2])
    fisher_KK = np.diag(p_K) - np.outer(p_K, p_K)
    moved_K = softmax(np.log(p_K) + 1e-6 * np.linalg.pinv(fisher_KK) @ g_K)
    assert (moved_K - p_K) / 1e-6 == pytest.approx(g_K, abs=1e-5)
    assert cast(float, (fisher_KK @ (g_K / p_K))[0]) == pytest.approx(g_K[0])
