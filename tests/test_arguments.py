"""What a user gives wins: arguments and options over a file, also where they equal a default; each is of its type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import autoprune
from autoprune import api, rounds, rundir
from autoprune.cli import app
from autoprune.comparing import comparison
from autoprune.config import SearchConfig, load_config
from autoprune.data.splits import dealt
from autoprune.envs import make
from autoprune.errors import UserError
from autoprune.options import SETTINGS
from autoprune.settings_record import WorkloadConfig

OTHER: dict[str, Any] = {
    "model": "some/model", "data": "other.txt", "agent": "random", "agent_options": {"batch": 3}, "reward": "purl",
    "reward_options": {"beta": 3.0},
    "pretrained": "runs/before", "budgets": {"macs": 0.7}, "of": "model", "workload": {"phase": "decode"},
    "space": "depth", "levels": 5, "round_to": 8, "mlp_group": 2, "criterion": "wanda", "loss": "ce", "seed": 7,
    "data_seed": 8, "max_evals": 11, "max_tokens": 12, "max_time": 13.0, "sequence_length": 64, "image_mean": [0.1],
    "image_std": [0.2], "reconstruction_sequences": 21, "search_sequences": 22, "validation_sequences": 23, "batch": 4,
    "storage": "sqlite:///x.db", "track": "csv", "study_name": "other", "device": "meta", "dtype": "bfloat16",
    "trust_remote_code": True, "workers": 2, "ray_address": "auto", "gpus_per_worker": 0.5, "device_memory": 2**20,
    "state_memory": 2**21, "task": "images", "data_column": "body", "data_split": "test",
    "refit": False, "forms": "groups,sparse", "rounds": 2, "round_tokens": 31,
}  # fmt: skip
"""For every setting a value that is not its default."""

DEFAULTS = SearchConfig().model_dump()


class Seen(Exception):  # noqa: N818 (no error: it carries what was to be searched)
    """The configuration that a search would have begun with."""

    def __init__(self, config: SearchConfig) -> None:
        super().__init__("seen")
        self.config = config


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A YAML file in which no setting has its default; searches end where they begin."""

    def seen(config: SearchConfig, *_: Any) -> None:
        raise Seen(config)

    monkeypatch.setattr(rounds, "start", seen)
    monkeypatch.setattr(comparison, "compare", seen)
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(OTHER))
    return path


def test_every_setting_has_another_value() -> None:
    assert set(OTHER) == set(SearchConfig.model_fields)
    given = load_config(None, OTHER).model_dump()
    assert [name for name in OTHER if given[name] == DEFAULTS[name]] == []


@pytest.mark.parametrize("name", OTHER)
def test_an_argument_that_equals_its_default_wins(file: Path, name: str) -> None:
    with pytest.raises(Seen) as searched:
        autoprune.search(config=file, **{name: DEFAULTS[name]})
    with pytest.raises(Seen) as compared:
        autoprune.compare(["random"], config=file, **{name: DEFAULTS[name]})
    for found in (searched.value.config, compared.value.config):
        assert found.model_dump() == load_config(None, OTHER).model_dump() | {name: DEFAULTS[name]}


def test_what_is_not_given_is_the_files(file: Path) -> None:
    with pytest.raises(Seen) as searched:
        autoprune.search(config=file)
    assert searched.value.config == load_config(file)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("command", ["search", "compare"])
def test_an_option_that_equals_its_default_wins(file: Path, command: str, name: str) -> None:
    flag, default = f"--{name.replace('_', '-')}", DEFAULTS[name]
    option = [flag, str(default)]
    if name == "budgets":
        option = ["--budget", "params=0.5"]
    elif name == "trust_remote_code":
        option = ["--no-trust-remote-code"]
    elif name == "refit":
        option = ["--refit"]
    elif default is None:
        option = [f"{name}=null"]
    if (command, name) == ("compare", "agent"):
        option = ["agent=evolution"]
    with pytest.raises(Seen) as searched:
        app([command, "--config", str(file), *option], standalone_mode=False)
    assert searched.value.config.model_dump() == load_config(None, OTHER).model_dump() | {name: default}


def test_every_setting_is_an_option(file: Path) -> None:
    """And what an option says is what the setting gets."""
    told = {"levels": "1,0.5", "image_mean": "0.1,0.2", "image_std": "0.3", "device_memory": "1MiB"}
    values = {"levels": [1.0, 0.5], "image_mean": [0.1, 0.2], "image_std": [0.3], "trust_remote_code": True}
    options = ["--budget", "macs=70%", "--trust-remote-code", "--no-refit"]
    for name in (name for name in SETTINGS if name not in ("budgets", "trust_remote_code", "refit")):
        options += [f"--{name.replace('_', '-')}", str(told.get(name, OTHER[name]))]
    with pytest.raises(Seen) as searched:
        app(["search", *options], standalone_mode=False)
    expected = {name: OTHER[name] for name in SETTINGS} | values
    found = searched.value.config.model_dump()
    assert {name: found[name] for name in SETTINGS} == expected


def test_settings_are_described() -> None:
    fields = {**SearchConfig.model_fields, **WorkloadConfig.model_fields}
    own = ("agent_options", "reward_options", "workload")
    assert [name for name, field in fields.items() if name not in own and not field.description] == []


# -- types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.5, {"params": 0.5}),
        (np.float32(0.5), {"params": 0.5}),
        (1_200_000, {"params": 1.2e6}),
        ("50%", {"params": 0.5}),
        ("0.5", {"params": 0.5}),
        ("params=0.5", {"params": 0.5}),
        ("macs=50%", {"macs": 0.5}),
        (["params=0.5", "macs=1.2G"], {"params": 0.5, "macs": 1.2e9}),
        ({"params": "1.2M"}, {"params": 1.2e6}),
        ({"params": "40%", "macs": 0.6}, {"params": 0.4, "macs": 0.6}),
        ({Path("my/table.csv"): 0.6}, {"my/table.csv": 0.6}),
        (None, {"params": 0.5}),
    ],
)
def test_budgets_in_every_form(given: Any, expected: dict[str, float], tmp_path: Path) -> None:
    assert load_config(None, {"budgets": given}).budgets == pytest.approx(expected)
    if not isinstance(given, np.generic) and not any(isinstance(key, Path) for key in expected):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({"budgets": expected}))
        assert load_config(tmp_path / "c.yaml").budgets == pytest.approx(expected)


@pytest.mark.parametrize(
    "given",
    [True, object(), [], [0.5], {}, "half", "150%", "params=", "=0.5", "0.5.5", -1, 0, float("nan"),
     {"params": None}, {"params": True}, {"params": "x"}, {"params": [1]}, {5: 0.5}, {"params": "200%"}],
)  # fmt: skip
def test_budgets_that_are_none(given: Any) -> None:
    with pytest.raises(UserError, match="budget"):
        load_config(None, {"budgets": given})


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("wrong", [object(), {1: 2}, [object()], True], ids=["object", "mapping", "list", "true"])
def test_settings_of_another_type(name: str, wrong: Any) -> None:
    if name == "trust_remote_code" and wrong is True:
        return
    with pytest.raises(UserError, match=name.removesuffix("s")):
        autoprune.search(**{name: wrong})


@pytest.mark.parametrize(
    ("call", "seen"),
    [  # what is ignored below is what is tested: arguments of a type that the signature does not have
        (lambda: autoprune.search(out=5), "search: out"),  # type: ignore[arg-type]
        (lambda: autoprune.search(config={"seed": 1}), "search: config"),  # type: ignore[arg-type]
        (lambda: autoprune.compare(5), "agent '5'"),
        (lambda: autoprune.compare(["random"], seeds=1.5), "compare: seeds"),  # type: ignore[arg-type]
        (lambda: autoprune.resume(None), "resume: path"),  # type: ignore[arg-type]
        (lambda: autoprune.resume("nowhere", seed=3), "seed"),
        (lambda: autoprune.finetune("nowhere", epochs="many"), "finetune: epochs"),  # type: ignore[arg-type]
        (lambda: autoprune.finetune("nowhere", 1, progress=3), "finetune: progress"),  # type: ignore[arg-type]
        (lambda: autoprune.make_env(tokens="all"), "make_env: tokens"),  # type: ignore[arg-type]
        (lambda: autoprune.make_env(reward=5), "make_env: reward"),  # type: ignore[arg-type]
        (lambda: autoprune.make_env(budgets=True), "budgets"),
        (lambda: api.evaluate(5), "evaluate: path"),  # type: ignore[arg-type]
        (lambda: api.evaluate("x", max_sequences=0), "evaluate: max_sequences"),
        (lambda: api.evaluate("x", tokens=3), "evaluate: tokens"),  # type: ignore[call-arg]
    ],
)
def test_arguments_of_another_type(call: Callable[[], object], seen: str) -> None:
    with pytest.raises(UserError, match=seen):
        call()


def test_paths_and_numpys_numbers_are_understood(file: Path) -> None:
    with pytest.raises(Seen) as searched:
        autoprune.search(Path("net"), Path("text.txt"), seed=np.int64(3), max_time=np.float32(2))  # type: ignore[arg-type]
    found = searched.value.config
    assert (found.model, found.data, found.seed, found.max_time) == ("net", "text.txt", 3, 2.0)
    with pytest.raises(Seen):
        autoprune.compare("random, uniform", range(2))


# -- what is told before a search --------------------------------------------------------------------------------------


def told(settings: dict[str, Any]) -> list[str]:
    """What the environment of such settings warns of; so does a search."""
    with pytest.warns(UserWarning, match="budget|asked") as caught:
        make.make_env(**settings, sensitivities=False)
    return [str(one.message) for one in caught]


def test_a_bound_above_the_dense_network_is_told(quick: dict[str, Any]) -> None:
    (first,) = told(quick | {"budgets": {"params": "250k"}})
    assert first.startswith("the budget params=250,000 bounds nothing: the dense network has 122,880 that count")
    assert "of 156,352 in the whole network" in first
    assert "So nothing need be pruned, and the dense network is an answer. Give less" in first


def test_only_the_loose_one_of_several_budgets_is_told(quick: dict[str, Any], tmp_path: Path) -> None:
    (only,) = told(quick | {"budgets": {"params": 0.5, "macs": 1e9}})
    assert only.startswith("the budget macs=1,000,000,000 bounds nothing")
    (tmp_path / "own.py").write_text("def groups(unit, kept, workload):\n    return kept\n")
    own = f"{tmp_path / 'own.py'}:groups"
    (only,) = told(quick | {"budgets": {own: 1.0, "macs": 0.6}})
    assert own in only


@pytest.mark.parametrize(
    ("count", "asked", "expected"),
    [
        (1000, {}, (128, 64, 64)),
        (100, {}, (50, 25, 25)),
        (30, {"validation": 12}, (12, 6, 12)),
        (28, {"reconstruction": 8, "search": 8, "validation": 12}, (8, 8, 12)),
        (1000, {"search": 300}, (128, 300, 64)),
        (30, {"reconstruction": 16, "search": 8, "validation": 12}, (15, 7, 7)),  # 36 of 30
        (9, {"reconstruction": 5}, (5, 2, 2)),
    ],
)
def test_numbers_that_are_asked_for_are_kept(
    count: int, asked: dict[str, int | None], expected: tuple[int, int, int]
) -> None:
    assert tuple(dealt(count, asked).values()) == expected


def test_a_text_too_short_for_what_is_asked_is_told(quick: dict[str, Any]) -> None:
    (only,) = told(quick | {"validation_sequences": 5000})
    assert "validation has " in only
    assert " of 5000" in only


@pytest.mark.parametrize("budgets", [10**400, {"params": 10**400}])
def test_a_bound_that_no_float_can_hold_is_refused(budgets: Any) -> None:
    with pytest.raises(UserError, match="budget"):
        load_config(None, {"budgets": budgets})


def test_a_run_cannot_have_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        rundir.create(tmp_path / "a\0b")
