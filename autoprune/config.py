"""The configuration of a search: one frozen record from defaults, a YAML file, flags and `key=value` overrides."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from autoprune import objects, registry
from autoprune.amounts import parse_count, parse_seconds
from autoprune.arguments import told
from autoprune.data_names import Wanted, names_of
from autoprune.errors import UserError
from autoprune.files.writing import write_atomically
from autoprune.forms import listed
from autoprune.ports.task import Task
from autoprune.settings_file import check_names, read_settings
from autoprune.settings_record import AGENT, BUDGETS, LEVELS, MODEL, PLACE, RECORD, SAMPLES, Settings, WorkloadConfig
from autoprune.task_choice import task_of
from autoprune.workload import Workload
from autoprune.written import DEFAULT_BUDGETS, budgets_of, check_bound, parse_size, path_as_text, without_password

PLACES = {"workers", "ray_address", "gpus_per_worker", "device_memory", "state_memory", "storage", "track"}
"""Settings that say where a search is scored. They do not change what it finds, with one exception: where blocks are
streamed (`device_memory`), `evolution` gets no slopes and therefore proposes other policies."""

LIMITS = ("max_evals", "max_tokens", "max_time")
"""Settings that end a search, which `resume` can change: evaluations, tokens, seconds."""

STORAGE = "AUTOPRUNE_STORAGE"
"""The environment variable with the URL of the storage. Its password is never written to a file."""
MOST_LEVELS = 1000
DEFAULT_TOKENS = 400_000
"""The limit on tokens if none is given: about a minute for 22 M parameters on two cores. Four times as many tokens gain
about 0.013 nats there (benchmarks/README.md)."""


class SearchConfig(Settings):
    """All settings that decide the result of a run. They are saved in the run as `config.yaml`.

    Sizes of splits are numbers of sequences of `sequence_length` tokens. `max_tokens` counts policies x tokens.
    """

    model: Annotated[str | None, MODEL] = Field(
        None,
        description="Hugging Face directory, hub name, FILE.py:FUNCTION or tiny-cnn; the default is an embedded model",
    )
    data: Annotated[str | list[str] | dict[str, float] | None, MODEL] = Field(
        None,
        description="text, JSON lines, CSV, Parquet, a folder, a data set (of the hub: NAME:SPLIT), - for stdin; or "
        "images: .npz, folder, data set, digits; may be repeated, with a weight as b.jsonl=2; the default is Python's "
        "documentation",
    )
    data_column: Annotated[str | None, MODEL] = Field(
        None,
        min_length=1,
        description="column of records that holds the texts, the chats or the images; the default is guessed",
    )
    data_split: Annotated[str | None, MODEL] = Field(
        None, min_length=1, description="split of a data set; the default is train, or the only one"
    )
    task: Annotated[str | None, MODEL] = Field(
        None, description="what the network reads, see `autoprune list tasks`; the default is found from the model"
    )
    agent: Annotated[str, AGENT] = Field("evolution", description="search algorithm, see `autoprune list agents`")
    agent_options: Annotated[dict[str, Any], AGENT] = Field(default_factory=dict, description="settings of the agent")
    reward: Annotated[str | None, AGENT] = Field(
        None, description="reward of agents that learn by reinforcement, see `autoprune list rewards`"
    )
    reward_options: Annotated[dict[str, Any], AGENT] = Field(default_factory=dict, description="options of the reward")
    pretrained: Annotated[str | None, AGENT] = Field(
        None, description="a run whose trained agent the search starts from"
    )
    budgets: Annotated[dict[str, float], BUDGETS] = Field(
        default_factory=lambda: dict(DEFAULT_BUDGETS),
        description="upper bound on a metric: 50% or 0.5 kept, -30% removed, 1.2M or -2M; may be repeated",
    )
    of: Annotated[Literal["prunable", "model"], BUDGETS] = Field(
        "prunable",
        description="what a bound on params or macs is of: prunable, what can be pruned, or model, the whole network",
    )
    workload: Annotated[WorkloadConfig, BUDGETS] = Field(
        default_factory=lambda: WorkloadConfig.model_validate({}), description="how the network will be used"
    )
    space: Annotated[Literal["width", "depth"], LEVELS] = Field(
        "width", description="width chooses among all levels; depth keeps or drops each sub-block"
    )
    levels: Annotated[int | list[float], LEVELS] = Field(
        9, description="number of evenly spaced levels, or the fractions kept"
    )
    forms: Annotated[str, LEVELS] = Field(
        "groups", description="forms of levels, with commas: groups,sparse,2:4,bits,linear; see `autoprune list forms`"
    )
    round_to: Annotated[int, LEVELS] = Field(1, ge=1, description="MLP levels keep multiples of this many neurons")
    mlp_group: Annotated[int, LEVELS] = Field(1, ge=1, description="neighbouring neurons that are removed together")
    criterion: Annotated[str, LEVELS] = Field(
        "obs", description="which groups or weights leave first, see `autoprune list criteria`"
    )
    refit: Annotated[bool, LEVELS] = Field(
        True,
        description="correct the weights of the best policy once more, together, before it is validated and exported; "
        "--no-refit leaves them as the search scored them",
    )
    loss: Annotated[str, AGENT] = Field("kl", description="loss that agents minimise")
    seed: Annotated[int, AGENT] = Field(0, ge=0, description="random seed of the agent")
    data_seed: Annotated[int, SAMPLES] = Field(0, ge=0, description="random seed of the data splits")
    max_evals: Annotated[int | None, BUDGETS] = Field(
        None, gt=0, description="limit on the evaluations, the policies scored"
    )
    max_tokens: Annotated[int | None, BUDGETS] = Field(
        None,
        gt=0,
        description="limit on policies x tokens, or policies x images, scored; without any limit it is "
        f"{DEFAULT_TOKENS:,}",
    )
    max_time: Annotated[float | None, BUDGETS] = Field(
        None, gt=0, description="limit on the time of search, in seconds or as 10min"
    )
    rounds: Annotated[int, BUDGETS] = Field(
        1,
        ge=1,
        description="number of searches in a row, with a training between two; each goes on from the trained network",
    )
    round_tokens: Annotated[int | None, BUDGETS] = Field(
        None,
        gt=0,
        description="tokens, or images, to train on between two rounds; the default is what half of max_tokens "
        "pays for",
    )
    sequence_length: Annotated[int, SAMPLES] = Field(
        512, ge=8, description="tokens in a sequence, or images in a sample (32 by default for images)"
    )
    image_mean: Annotated[list[float] | None, SAMPLES] = Field(
        None,
        min_length=1,
        description="mean of each channel, for values up to 1; the default is the checkpoint's, digits' or ImageNet's",
    )
    image_std: Annotated[list[float] | None, SAMPLES] = Field(
        None, min_length=1, description="standard deviation of each channel, with the same default"
    )
    reconstruction_sequences: Annotated[int | None, SAMPLES] = Field(
        None, ge=2, description="samples for reconstruction; the default is 128, or half of the data if that is less"
    )
    search_sequences: Annotated[int | None, SAMPLES] = Field(
        None, ge=2, description="samples that policies are scored on; the default is 64, or a quarter of the data"
    )
    validation_sequences: Annotated[int | None, SAMPLES] = Field(
        None, ge=2, description="samples that results are measured on; the default is 64, or a quarter of the data"
    )
    batch: Annotated[int | None, PLACE] = Field(
        None, ge=1, description="samples in a forward pass; the default is 1 on a CPU and 16 on a GPU"
    )
    storage: Annotated[str | None, RECORD] = Field(
        None, description="URL of an Optuna storage for the study; the default is a file in the run"
    )
    study_name: Annotated[str | None, RECORD] = Field(
        None, description="name of the Optuna study; the default is the run's name"
    )
    track: Annotated[str | None, RECORD] = Field(
        None,
        description="trackers of the run, with commas, see `autoprune list trackers`; the default is none",
    )
    device: Annotated[str, PLACE] = Field("cpu", description="torch device")
    dtype: Annotated[str, PLACE] = Field(
        "auto", description="data type to compute in; auto is float32 on a CPU and the checkpoint's on a GPU"
    )
    trust_remote_code: Annotated[bool, MODEL] = Field(
        False, description="allow code that ships with the model to run; --no-trust-remote-code forbids it"
    )
    workers: Annotated[int | None, PLACE] = Field(
        None, ge=1, description="number of scoring processes on Ray; the default, 1, scores in this process"
    )
    ray_address: Annotated[str | None, PLACE] = Field(
        None, description="address of a running Ray cluster: auto, HOST:PORT or ray://ADDRESS"
    )
    gpus_per_worker: Annotated[float | None, PLACE] = Field(
        None, ge=0, description="GPUs, or share of one, for each worker; the default is 1 with cuda"
    )
    device_memory: Annotated[int | None, PLACE] = Field(
        None, gt=0, description="device memory in bytes or as 8GiB; blocks that do not fit stay in the host's memory"
    )

    state_memory: Annotated[int | None, PLACE] = Field(
        None,
        gt=0,
        description="memory for hidden states, such as 8GiB; the default is a quarter of the free memory",
    )

    @field_validator("max_evals", "max_tokens", "round_tokens", mode="before")
    @classmethod
    def _counted(cls, count: Any) -> Any:
        """Accept numbers as people write them: `400k`."""
        return parse_count(count) if isinstance(count, str) else count

    @field_validator("max_time", mode="before")
    @classmethod
    def _timed(cls, time: Any) -> Any:
        """Accept times as people write them: `10min`."""
        return parse_seconds(time) if isinstance(time, str) else time

    @field_validator("device_memory", "state_memory", mode="before")
    @classmethod
    def _sized(cls, size: Any) -> Any:
        """Accept sizes as the command line does: `8GiB`."""
        return parse_size(size) if isinstance(size, str) else size

    @field_validator("track", mode="before")
    @classmethod
    def _listed(cls, track: Any) -> Any:
        """Accept a list of names as well as one text with commas."""
        listed = track.split(",") if isinstance(track, str) else track
        if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
            return track
        return ",".join(dict.fromkeys(filter(None, map(str.strip, listed)))) or None

    @field_validator("forms", mode="before")
    @classmethod
    def _forms(cls, forms: Any) -> Any:
        """Accept a list of forms as well as one text with commas."""
        return listed(forms)

    @field_validator("data", mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        """Accept names of data as the command line does."""
        return names_of(data)

    @field_validator("budgets", mode="before")
    @classmethod
    def _written(cls, budgets: Any) -> Any:
        """Accept budgets as the command line does; a bound without a metric bounds params (`budgets_of`)."""
        return budgets_of(budgets)

    @field_validator("budgets")
    @classmethod
    def _bounds(cls, budgets: dict[str, float]) -> dict[str, float]:
        for metric, bound in budgets.items():
            check_bound(metric, bound)
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
        """Whether both configurations find the same. Settings of `PLACES` are not compared."""
        return self.model_dump(exclude=PLACES) == other.model_dump(exclude=PLACES)

    def goes_on_as(self, other: "SearchConfig") -> bool:
        """Whether a search of this configuration can go on with the other. Limits may differ, too."""
        return self.same_search(other.model_copy(update={name: getattr(self, name) for name in LIMITS}))

    def agent_settings(self) -> dict[str, Any]:
        """The settings of the agent, including those that stand by themselves: reward, its options, and pretrained."""
        own = {"reward": self.reward, "reward_options": self.reward_options or None, "pretrained": self.pretrained}
        return self.agent_options | {key: value for key, value in own.items() if value is not None}

    def wanted(self) -> Wanted:
        """The data that are to be read."""
        return Wanted(self.data, self.data_column, self.data_split)

    def chosen_task(self) -> Task:
        """The configured task, or the one that fits the model.

        Raises:
            UserError: there is no such task.
        """
        return task_of(self.task, self.model)

    def split_sizes(self) -> dict[str, int | None]:
        """The configured number of samples of each split; None where it is not configured."""
        return {
            "reconstruction": self.reconstruction_sequences,
            "search": self.search_sequences,
            "validation": self.validation_sequences,
        }

    def batch_size(self) -> int:
        """Number of sequences in a forward pass on the configured device."""
        return self.batch or (1 if self.device == "cpu" else 16)

    def workload_of(self) -> Workload:
        """How the network will be used."""
        own = self.workload
        return Workload(own.context or self.sequence_length, own.batch, own.phase, own.dtype, own.hardware)

    def home(self) -> str:
        """The device where blocks and levels are kept: `cpu` where blocks are streamed to the configured device."""
        return self.device if self.device_memory is None else "cpu"

    def fractions(self) -> list[float]:
        """The fraction kept at each level, before rounding to groups."""
        if self.space == "depth":
            return [1.0, 0.0]
        if isinstance(self.levels, list):
            return sorted(self.levels, reverse=True)
        return [1 - i / (self.levels - 1) for i in range(self.levels)]

    def save(self, path: Path) -> None:
        """Write the configuration as YAML. `***` replaces the password of a storage's URL; `STORAGE` gives it back.

        Raises:
            UserError: the disk is full or not writable.
        """
        write_atomically(
            path, yaml.safe_dump(self.model_dump() | {"storage": without_password(self.storage)}, sort_keys=False)
        )


def is_module(model: object) -> bool:
    """Whether a model is named as a function that makes a plain module, not as a directory or a hub name."""
    if not isinstance(model, str):
        return False
    return (":" in model and model.rpartition(":")[2].isidentifier()) or model in registry.names("models")


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> SearchConfig:
    """The configuration from a YAML file and overrides. Overrides take precedence.

    Raises:
        UserError: the file is missing or is not YAML, a key is unknown, or a value is out of range.
    """
    data: dict[str, Any] = {}
    if path is not None:
        data = read_settings(path)
        whole = os.environ.get(STORAGE)
        if whole and without_password(whole) == data.get("storage"):
            data["storage"] = whole
    for key, value in objects.named(overrides or {}).items():
        head, _, tail = key.partition(".")
        value = path_as_text(value)
        if tail:
            inside = data.get(head) or {}
            if not isinstance(inside, dict):
                raise UserError(f"'{key}' names a setting within {head}, which is {inside!r} and has none.")
            data[head] = {**inside, tail: value}
        else:
            data[key] = value
    check_names(data, list(SearchConfig.model_fields), path)
    if isinstance(data.get("workload"), dict):
        check_names(data["workload"], list(WorkloadConfig.model_fields), path, "workload.")
    named = data.get("task")
    if named is None or isinstance(named, str):  # the record tells of anything else
        settings = task_of(named, data.get("model")).settings(data.get("model"))
        data |= {key: value for key, value in settings.items() if data.get(key) is None}
    try:
        return SearchConfig(**data)
    except ValidationError as error:
        raise UserError(f"{told(error)}.") from error
