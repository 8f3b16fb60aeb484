"""The configuration of a search: one frozen record from defaults, a YAML file, flags and `key=value` overrides."""

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, overload

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from autoprune import registry
from autoprune.arguments import told
from autoprune.errors import UserError
from autoprune.files.reading import parse_yaml, read_yaml, reason
from autoprune.files.writing import write_atomically
from autoprune.ports.task import Task
from autoprune.task_choice import task_of
from autoprune.workload import Phase, Workload

DEFAULT_BUDGETS = {"params": 0.5}

PLACES = {"workers", "ray_address", "gpus_per_worker", "device_memory", "state_memory", "storage"}
"""Settings that say where a search is scored, and do not change what it finds; but `evolution` has no slopes to climb
along where blocks are streamed (`device_memory`), and takes another way."""


STORAGE = "AUTOPRUNE_STORAGE"
"""The environment variable that holds a storage's URL, whose password is in no file."""
MOST_LEVELS = 1000


class WorkloadConfig(BaseModel):
    """What the network will be run on, for metrics that depend on it: `workload.phase=decode workload.batch=8`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: Phase = Field("prefill", description="prefill: whole sequences; decode: one new token of each")
    batch: int = Field(1, ge=1, description="sequences or images of a forward pass")
    context: int | None = Field(None, ge=1, description="positions of a sequence; none is sequence_length")
    dtype: str | None = Field(None, description="of roofline; none is what the search computes in")
    hardware: str | None = Field(None, description="of roofline: a name of devices.yaml, or FILE.yaml[:NAME]")


class SearchConfig(BaseModel):
    """Everything that decides a run's result; saved in the run as `config.yaml`.

    Sizes of splits are in sequences of `sequence_length` tokens; `max_tokens` counts policies x tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    model: str | None = Field(
        None, description="Hugging Face directory, hub name, FILE.py:FUNCTION or tiny-cnn; none is embedded"
    )
    data: str | None = Field(
        None, description="text file; .npz, folder or data set of images, or digits; none is Python's documentation"
    )
    task: str | None = Field(
        None, description="what the network reads, see `autoprune list tasks`; none is found out from the model"
    )
    agent: str = Field("evolution", description="search algorithm, see `autoprune list agents`")
    agent_options: dict[str, Any] = Field(default_factory=dict, description="settings of the agent")
    reward: str | None = Field(
        None, description="what an agent that learns by reinforcement is paid, see `autoprune list rewards`"
    )
    pretrained: str | None = Field(None, description="a run whose trained agent the search starts from")
    budgets: dict[str, float] = Field(
        default_factory=lambda: dict(DEFAULT_BUDGETS),
        description="bound on a metric, up to 1 a fraction of dense; several may be given",
    )
    workload: WorkloadConfig = Field(
        default_factory=lambda: WorkloadConfig.model_validate({}), description="what the network will be run on"
    )
    space: Literal["width", "depth"] = Field(
        "width", description="width: all levels; depth: keep or drop each sub-block"
    )
    levels: int | list[float] = Field(9, description="number of evenly spaced levels, or the fractions kept")
    round_to: int = Field(1, ge=1, description="MLP levels keep multiples of this many neurons")
    mlp_group: int = Field(1, ge=1, description="neighbouring neurons that are removed together")
    criterion: str = Field("obs", description="orders groups, reconstructs consumers")
    loss: str = Field("kl", description="what agents minimise")
    seed: int = Field(0, ge=0, description="of the agent")
    data_seed: int = Field(0, ge=0, description="of the splits")
    max_evals: int | None = Field(None, gt=0, description="policies scored at most")
    max_tokens: int | None = Field(None, gt=0, description="policies x tokens, or images, scored at most")
    max_time: float | None = Field(None, gt=0, description="seconds of search at most")
    sequence_length: int = Field(512, ge=8, description="tokens of a sequence; images of a sample, for which it is 32")
    image_mean: list[float] | None = Field(
        None, min_length=1, description="of channels, of values up to 1; none: the checkpoint's, digits' or ImageNet's"
    )
    image_std: list[float] | None = Field(None, min_length=1, description="of channels, likewise")
    reconstruction_sequences: int | None = Field(
        None, ge=2, description="that levels are reconstructed with; none is 128, or half of the data if that is less"
    )
    search_sequences: int | None = Field(
        None, ge=2, description="that policies are scored on; none is 64, or a quarter of the data"
    )
    validation_sequences: int | None = Field(
        None, ge=2, description="that results are measured on; none is 64, or a quarter of the data"
    )
    batch: int | None = Field(
        None, ge=1, description="sequences or samples a forward pass; none is 1 on a CPU, 16 on a GPU"
    )
    storage: str | None = Field(None, description="Optuna storage URL of the study; none is a file in the run")
    study_name: str | None = Field(None, description="of the Optuna study; none is the run's name")
    device: str = Field("cpu", description="torch device")
    dtype: str = Field("auto", description="what to compute in; auto: float32 on a CPU, the checkpoint's on a GPU")
    trust_remote_code: bool = Field(False, description="run code that ships with the model")
    workers: int | None = Field(None, ge=1, description="scorers on Ray; 1 scores in this process, none is 1 there")
    ray_address: str | None = Field(
        None, description="of a Ray cluster that runs already: auto, HOST:PORT or ray://ADDRESS"
    )
    gpus_per_worker: float | None = Field(
        None, ge=0, description="GPUs or a share of one for each scorer; none is 1 with cuda"
    )
    device_memory: int | None = Field(
        None, gt=0, description="bytes, or as 8GiB; blocks beyond it stay in the host's memory"
    )

    state_memory: int | None = Field(
        None,
        gt=0,
        description="bytes, or as 8GiB, for hidden states; none is a quarter of what is free, 2 GiB at most on a CPU",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Numbers may be NumPy's; true and false are none."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("neither true nor false is a value of it")
        if isinstance(value, Integral) and not isinstance(value, bool):
            return int(value)
        return float(value) if isinstance(value, Real) and not isinstance(value, Integral) else value

    @field_validator("device_memory", "state_memory", mode="before")
    @classmethod
    def _sized(cls, size: Any) -> Any:
        """Bytes may be written as on the command line: `8GiB`."""
        return parse_size(size) if isinstance(size, str) else size

    @field_validator("budgets", mode="before")
    @classmethod
    def _written(cls, budgets: Any) -> Any:
        """Budgets may be written as on the command line, and a bound alone is one of params: `budgets_of`."""
        return budgets_of(budgets)

    @field_validator("budgets")
    @classmethod
    def _bounds(cls, budgets: dict[str, float]) -> dict[str, float]:
        for metric, bound in budgets.items():
            if not (math.isfinite(bound) and bound > 0):
                raise ValueError(f"the budget {metric}={bound} must be a number above 0")
        if not budgets:
            raise ValueError("at least one budget is needed, as params=0.5")
        return budgets

    @field_validator("levels")
    @classmethod
    def _levels(cls, levels: int | list[float]) -> int | list[float]:
        if isinstance(levels, int) and levels < 2:
            raise ValueError(f"{levels} levels leave nothing to choose: at least 2 are needed")
        if (levels if isinstance(levels, int) else len(levels)) > MOST_LEVELS:
            raise ValueError(f"more than {MOST_LEVELS:,} levels cannot be stored")
        if isinstance(levels, list) and not (levels and all(0 <= f <= 1 for f in levels) and min(levels) < 1):
            raise ValueError(f"the levels {levels} must be fractions kept, in [0, 1], at least one below 1")
        return levels

    def same_search(self, other: "SearchConfig") -> bool:
        """Whether both find the same: where and by how many a search is scored does not count."""
        return self.model_dump(exclude=PLACES) == other.model_dump(exclude=PLACES)

    def agent_settings(self) -> dict[str, Any]:
        """The agent's own settings, with those that have an option of their own on the command line."""
        own = {"reward": self.reward, "pretrained": self.pretrained}
        return self.agent_options | {key: value for key, value in own.items() if value is not None}

    def chosen_task(self) -> Task:
        """What the network reads.

        Raises:
            UserError: there is no such task.
        """
        return task_of(self.task, self.model)

    def split_sizes(self) -> dict[str, int | None]:
        """Samples that are asked for, by split; None where no number is."""
        return {
            "reconstruction": self.reconstruction_sequences,
            "search": self.search_sequences,
            "validation": self.validation_sequences,
        }

    def batch_size(self) -> int:
        """Sequences a forward pass on the configured device."""
        return self.batch or (1 if self.device == "cpu" else 16)

    def workload_of(self) -> Workload:
        """What the network will be run on."""
        own = self.workload
        return Workload(own.context or self.sequence_length, own.batch, own.phase, own.dtype, own.hardware)

    def home(self) -> str:
        """The device where blocks and levels are kept: the host's memory where the configured device has not enough."""
        return self.device if self.device_memory is None else "cpu"

    def fractions(self) -> list[float]:
        """Fractions kept at each level, before rounding to groups."""
        if self.space == "depth":
            return [1.0, 0.0]
        if isinstance(self.levels, list):
            return sorted(self.levels, reverse=True)
        return [1 - i / (self.levels - 1) for i in range(self.levels)]

    def save(self, path: Path) -> None:
        """Write as YAML, but no password: of a storage's URL `***` stands in its place (`STORAGE` gives it back).

        Raises:
            UserError: the disk is full or not writable.
        """
        write_atomically(
            path, yaml.safe_dump(self.model_dump() | {"storage": without_password(self.storage)}, sort_keys=False)
        )


def is_module(model: object) -> bool:
    """Whether a model's name is that of a function that makes a plain module, and no directory's or hub's."""
    if not isinstance(model, str):
        return False
    return (":" in model and model.rpartition(":")[2].isidentifier()) or model in registry.names("models")


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> SearchConfig:
    """A configuration from a YAML file and overrides, which win.

    Raises:
        UserError: no such file, not YAML, an unknown key (with near misses), or a value out of range.
    """
    data: dict[str, Any] = {}
    if path is not None:
        data = _read_yaml(path)
        whole = os.environ.get(STORAGE)
        if whole and without_password(whole) == data.get("storage"):
            data["storage"] = whole
    for key, value in (overrides or {}).items():
        head, _, tail = key.partition(".")
        value = _path_as_text(value)
        if tail:
            inside = data.get(head) or {}
            if not isinstance(inside, dict):
                raise UserError(f"'{key}' names a setting within {head}, which is {inside!r} and has none.")
            data[head] = {**inside, tail: value}
        else:
            data[key] = value
    _check_names(data, list(SearchConfig.model_fields), path)
    if isinstance(data.get("workload"), dict):
        _check_names(data["workload"], list(WorkloadConfig.model_fields), path, "workload.")
    named = data.get("task")
    if named is None or isinstance(named, str):  # the record tells of anything else
        settings = task_of(named, data.get("model")).settings(data.get("model"))
        data |= {key: value for key, value in settings.items() if data.get(key) is None}
    try:
        return SearchConfig(**data)
    except ValidationError as error:
        raise UserError(f"{told(error)}.") from error


def _check_names(data: dict[str, Any], known: list[str], path: Path | None, within: str = "") -> None:
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean '{within}{near[0]}'?" if near else f" Known: {', '.join(known)}."
            raise UserError(f"no setting is called '{within}{key}'{f' (in {path})' if path else ''}.{hint}")


@overload
def without_password(url: str) -> str: ...


@overload
def without_password(url: None) -> None: ...


def without_password(url: str | None) -> str | None:
    """A storage URL as it may be shown: of what may be a password, rather too much is hidden than too little."""
    if url is None:
        return None
    url = re.sub(r"^((?:[\w+.-]+://)?+[^:]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&;]\w*(?:passw|pwd|secret|token)\w*=)[^&;]*", r"\1***", url, flags=re.IGNORECASE)


def parse_budget(text: str) -> tuple[str, float]:
    """`params=0.5`, `params=50%`, `params=1.2M`, `macs=3e9` -> metric and bound; of `0.5` alone the metric is params.

    Raises:
        UserError: not of that form.
    """
    metric, separator, value = text.rpartition("=")
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?\d+)?)([kMGTB%]?)", value.strip())
    try:
        if match is None or (separator and not metric.strip()):
            raise ValueError
        scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "%": 1}[match[2]]
        bound = float(match[1]) * scale / (100 if match[2] == "%" else 1)
    except ValueError:
        raise UserError(
            f"the budget '{text[:200]}' is not of the form METRIC=VALUE, as params=0.5, params=50% or params=1.2M."
        ) from None
    if match[2] == "%" and bound > 1:
        raise UserError(f"the budget '{text[:200]}' is more than the whole network: a share is at most 100%.")
    return metric.strip() or "params", bound


def budgets_of(given: Any) -> dict[Any, Any]:
    """Metrics and their bounds from any form a user may write: a mapping, a bound, `"macs=0.5"`, or a list of such.

    Raises:
        UserError: it is of none of these forms.
    """
    if given is None:
        return dict(DEFAULT_BUDGETS)
    if isinstance(given, Mapping):
        return {_path_as_text(metric): _bound(metric, bound) for metric, bound in given.items()}
    if isinstance(given, str):
        return dict([parse_budget(given)])
    if isinstance(given, Real) and not isinstance(given, bool):
        return {"params": _float(given)}
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, str) for one in given):
        return _once_each(parse_budget(one) for one in given)
    raise UserError(
        f"the budgets {given!r} are none: give 0.5, '50%', 'params=1.2M' or a mapping, as {{'params': 0.5}}."
    )


def _once_each(bounds: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for metric, bound in bounds:
        if metric in found:
            raise UserError(f"{metric} is given two budgets, {found[metric]:g} and {bound:g}: give the one that holds.")
        found[metric] = bound
    return found


def _bound(metric: Any, bound: Any) -> Any:
    if isinstance(bound, bool):
        raise UserError(f"the budget {metric}={bound} is no number: give one as 0.5, 50% or 1.2M.")
    if isinstance(bound, str):
        return parse_budget(f"{metric}={bound}")[1]
    return _float(bound) if isinstance(bound, Real) else bound


def _float(bound: Real) -> float:
    """A bound as a float: infinite, which is refused, where none is as large."""
    try:
        return float(bound)
    except OverflowError:
        return math.inf


def _path_as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def parse_size(text: str) -> int:
    """`8GiB`, `500MB`, `1073741824` -> bytes.

    Raises:
        UserError: not of that form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), flags=re.IGNORECASE)
    if match is None:
        raise UserError(f"the size '{text}' is not of the form NUMBER UNIT, as 8GiB or 500MB.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " "))


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` -> key and the value read as YAML.

    Raises:
        UserError: not of that form.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"'{text}' is not of the form key=value.")
    try:
        return key.strip(), parse_yaml(value)
    except ValueError as error:
        raise UserError(f"the value in '{text[:200]}' cannot be read: {reason(error)}.") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path)
    except OSError as error:
        raise UserError(f"the configuration '{path}' cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"the configuration '{path}' cannot be read: {reason(error)}.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"the configuration '{path}' must be a mapping of settings, not a {type(data).__name__}.")
    return data
