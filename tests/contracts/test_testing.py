"""The checks that ship with the package, over everything in the registry; and that they find what they are for."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

import autoprune
from autoprune import extend, ports, registry, testing
from autoprune.assembly import assemble
from autoprune.budgets.metric import Network
from autoprune.config import load_config
from autoprune.envs.rewards.record import RewardRecord
from autoprune.errors import UserError
from autoprune.objective import Objective
from autoprune.ports.exporter import load_exporter
from autoprune.testing import (
    check_agent,
    check_criterion,
    check_env,
    check_exporter,
    check_family,
    check_loss,
    check_metric,
    check_reward,
)  # fmt: skip
from tests import tiny_searches

NETWORKS = tiny_searches.networks()
MEASURED = {"activation", "latency"}
"""Metrics that take their time, and have tests of their own."""


# -- everything in the registry --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", registry.names("losses"))
def test_losses(loss: str, tiny_model: str, text_file: str) -> None:
    check_loss(loss, tiny_model, text_file, sequence_length=16)


def test_losses_of_images(tmp_path: Path, text_file: str) -> None:
    settings = tiny_searches.settings(NETWORKS["resnet"], tmp_path, text_file)
    check_loss("error", settings.pop("model"), settings.pop("data"), **settings)


@pytest.mark.slow
@pytest.mark.parametrize("family", registry.names("families"))
def test_families(family: str, tmp_path: Path, text_file: str) -> None:
    name = NETWORKS[registry.load("families", family).name]
    settings = tiny_searches.settings(name, tmp_path, text_file)
    check_family(family, settings.pop("model"), settings.pop("data"), **settings)


@pytest.fixture(scope="module")
def network(tiny_model: str, text_file: str, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """What metrics are shown of the tiny model."""
    settings = {"model": tiny_model, "data": text_file, "sequence_length": 16, "workload.hardware": "h100"}
    config = load_config(None, {**testing.networks.SMALL, **settings})
    assembly = assemble(config)
    cache = tmp_path_factory.mktemp("latencies")
    return Network(assembly.view, assembly.space.units, config.workload_of(), cache, task=assembly.task)


@pytest.mark.parametrize("metric", [name for name in registry.names("budgets") if name not in MEASURED])
def test_metrics(metric: str, network: Network) -> None:
    check_metric(metric, network=network)


@pytest.fixture(scope="module")
def image_run(tmp_path_factory: pytest.TempPathFactory, text_file: str) -> Path:
    """A finished search of a plain module."""
    folder = tmp_path_factory.mktemp("images")
    settings = tiny_searches.settings(NETWORKS["traced"], folder, text_file)
    return autoprune.search(**settings, agent="random", max_evals=4, out=folder / "run").path


@pytest.fixture(scope="module")
def run_of_bits(quick: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of weights of few bits."""
    own = {"budgets": {"memory": 0.5}, "forms": "bits:8/4/symmetric", "agent": "random", "max_evals": 4}
    return autoprune.search(**quick | own, out=tmp_path_factory.mktemp("bits") / "run").path


def loaded_text(path: Path, inputs: Tensor) -> Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        logits: Tensor = AutoModelForCausalLM.from_pretrained(path)(inputs).logits
    return logits


@pytest.mark.filterwarnings("ignore:the export saves nothing:UserWarning")
@pytest.mark.filterwarnings("ignore:transformers loads no packed embeddings:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("exporter", registry.names("exporters"))
def test_exporters(exporter: str, finished_run: Path, image_run: Path, run_of_bits: Path) -> None:
    """On the run of the language model, or on the first that it does not refuse."""
    loads = exporter == "hf"
    runs = (finished_run, image_run, run_of_bits)
    run = next(run for run in runs if load_exporter(exporter)().refuses(load_config(run / "config.yaml")) is None)
    inputs = torch.arange(26).view(2, 13) if loads else None
    check_exporter(exporter, run, {}, inputs, loaded_text if loads else None)


# -- what they find --------------------------------------------------------------------------------------------------


class Idle:
    """An agent that scores nothing."""

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        return


class Global:
    """An agent that draws from the process's generator."""

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        for _ in range(40):
            objective.by_sequence([objective.space.sample(np.random.default_rng(np.random.randint(10**6)))], [0])


def richer_for_worse(record: RewardRecord) -> float:
    return record.loss


def random_cost(unit: Any, kept: int, workload: Any) -> float:
    return kept * random_cost.step()  # type: ignore[attr-defined,no-any-return]


random_cost.step = iter(np.arange(1.0, 1e6)).__next__  # type: ignore[attr-defined]


class Reversed:
    """A criterion that keeps what matters least."""

    reconstructs = False

    def order(self, weight_OD: Tensor, moments_DD: Tensor, groups: int) -> Tensor:
        order: Tensor = weight_OD.norm(dim=0).view(groups, -1).sum(1).argsort()
        return order


class Endless(gymnasium.Env[Any, Any]):
    """An environment whose observations are outside of their space."""

    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.full(2, 3, np.float32), {}


BROKEN: dict[str, tuple[Callable[[], None], str]] = {
    "nothing scored": (lambda: check_agent(Idle), "no policy was scored"),
    "other randomness": (lambda: check_agent(Global, better_than_random=False), "take all randomness from `rng`"),
    "worse pays more": (lambda: check_reward(richer_for_worse), "pays"),
    "costs that rise": (lambda: check_metric(random_cost), "a level may not cost more than a denser one"),
    "an order upside down": (lambda: check_criterion(Reversed), "which no output reads"),
    "an environment": (lambda: check_env(Endless), "observation"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_hold_is_found(case: str) -> None:
    check, seen = BROKEN[case]
    with pytest.raises((AssertionError, UserError), match=seen):
        check()


def test_a_family_is_not_taken_for_another(tmp_path: Path, text_file: str) -> None:
    settings = tiny_searches.settings("gpt2", tmp_path, text_file)
    with pytest.raises(AssertionError, match="taken for one of the family 'gpt2', not 'opt'"):
        check_family("opt", settings.pop("model"), settings.pop("data"), **settings)


# -- what a plug-in imports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [extend, testing, ports], ids=lambda module: module.__name__)
def test_every_name_is_there(module: Any) -> None:
    assert module.__all__ == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_extend_and_testing_say_what_they_have() -> None:
    for module in (extend, testing):
        told = set(re.findall(r"`(\w+)`", module.__doc__ or ""))
        assert set(module.__all__) <= told, set(module.__all__) - told
