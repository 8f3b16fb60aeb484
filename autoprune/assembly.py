"""From a configuration to everything a search or an export needs: network, splits, space, store, evaluators.

Read top to bottom: model -> text -> units -> costs -> level store -> sorted network.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.budgets.metric import cost_rows, fixed_cost, metric_of
from autoprune.calibration.images import check_labels, preprocessing, read_images, split_images
from autoprune.calibration.moments import collect
from autoprune.calibration.text import Splits, read_text, sequences, split
from autoprune.config import SearchConfig, is_module, reads_images
from autoprune.coverage import Coverage
from autoprune.errors import UserError
from autoprune.evaluation.evaluator import REFERENCE_BYTES, Evaluator, free_state_bytes, sort_groups
from autoprune.levels.criterion import workspace_bytes
from autoprune.levels.evidence import check_needs, gather
from autoprune.levels.masked import MaskedWeights, save_moments
from autoprune.levels.placing import Placer
from autoprune.levels.store import LevelStore, build, cache_directory, is_complete, store_key
from autoprune.models.blocks import BlockView
from autoprune.models.family import Family
from autoprune.models.loading import LoadedModel, load_model
from autoprune.models.modules import load_module
from autoprune.models.tracing import image_view
from autoprune.ports.agent import load_agent
from autoprune.ports.criterion import load_criterion
from autoprune.ports.loss import load_loss
from autoprune.ports.metric import Metric, Network, load_metric
from autoprune.space import SearchSpace, Unit, kept_groups
from autoprune.wording import Task

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Assembly:
    """What `assemble` put together.

    Args:
        read: gives the splits, the same each time.
        network: held by whoever uses the network, where several searches share it.
        coverage: how much of the network the units are, where that was asked for.
    """

    config: SearchConfig
    loaded: LoadedModel
    read: Callable[[], Splits]
    view: BlockView
    space: SearchSpace
    store: LevelStore
    placer: Placer
    metrics: Mapping[str, Metric]
    network: threading.Lock = field(default_factory=threading.Lock, compare=False)
    coverage: Coverage | None = None

    @property
    def splits(self) -> Splits:
        """Sequences of the data."""
        return self.read()

    @property
    def subject(self) -> str:
        """What is scored, as the first line of a journal has it: network, text, levels and loss."""
        return f"{self.store.directory.name}/{self.config.loss}"

    def save_metrics(self, run: Path) -> None:
        """Write what metrics have measured to a run's directory, so that it goes on with the same costs.

        Raises:
            UserError: the disk is full or not writable.
        """
        for metric in self.metrics.values():
            metric.save(run)

    def notices(self) -> list[str]:
        """What the network and metrics have to tell the user, a sentence each."""
        told = [self.loaded.notice, *(metric.notice for metric in self.metrics.values())]
        return [notice for notice in told if notice]

    def evaluator(self, tokens_NT: Tensor, *losses: str, once: bool = False) -> Evaluator:
        """An evaluator of named losses on sequences of the user's choice.

        Args:
            once: every sequence will be asked for once, so nothing of the dense network need be remembered.
        """
        memory = 0 if once else REFERENCE_BYTES
        measured = [load_loss(loss) for loss in losses]
        tokens_NT = tokens_NT.to(self.config.device)
        states = self.config.state_memory or free_state_bytes(self.config.device)
        return Evaluator(self.placer, tokens_NT, measured, self.config.batch_size(), memory, states)


def assemble(
    config: SearchConfig,
    progress: Progress = lambda stage, share: None,
    masks: bool | None = None,
    run: Path | None = None,
    data: str | None = None,
) -> Assembly:
    """Load, cut and prepare; builds the level store unless an earlier search left it.

    Args:
        masks: whether single groups can be kept or removed, which needs the moments; None asks the configured agent.
        run: the directory of the run, where metrics find what they measured when it was begun.
        data: hash of the splits of a search that is over. A text is then read when something of it is asked for, and
            what only a search needs, metrics and budgets, is left out.

    Raises:
        UserError: whatever is wrong with the model, the data, the budgets or the cache.
    """
    load_criterion(config.criterion)  # so that what is wrong is told before the network is loaded
    load_loss(config.loss)
    agent = load_agent(config.agent)
    for metric in config.budgets:
        load_metric(metric)
    if masks is None:
        masks = agent.masks
    _check_device(config.device)
    if reads_images(config.model):
        loaded, read, view = _images(config, masks, progress)
    else:
        loaded, read, view = _text(config, masks, progress, data)
    check_needs(config.criterion, load_criterion(config.criterion), view)
    units = units_of(view, config)
    network = Network(view, units, config.workload_of(), cache_directory(), run, progress)
    asked = config.model_copy(update={"budgets": {}}) if data else config
    metrics = {name: metric_of(name, network) for name in asked.budgets}
    space = space_of(units, asked, masks, metrics, loaded.family.task)
    store, moments = _stored(config, loaded, read, data or read().digest, view, space.units, masks, progress)
    sort_groups(view, store)
    masked = masked_weights(view, space.units, store, moments, loaded.checkpoint_dtype) if masks else None
    return Assembly(config, loaded, read, view, space, store, Placer(view, space, store, masked), metrics)


def _text(
    config: SearchConfig, masks: bool, progress: Progress, data: str | None = None
) -> tuple[LoadedModel, Callable[[], Splits], BlockView]:
    """A language model, sequences of a text, and its blocks; where the text's hash is known it is not read yet."""
    text = read_text(config.data) if data is None else None
    progress("loading the model", 0.0)
    loaded = load_model(config.model, config.device, config.dtype, config.trust_remote_code, config.home())
    _check_length(loaded, config.sequence_length)

    @cache
    def read() -> Splits:
        tokens_NT = sequences(text or read_text(config.data), loaded.tokenizer, config.sequence_length)
        _check_vocabulary(loaded, tokens_NT)
        splits = split(tokens_NT, _asked(config), config.data_seed)
        if data not in (None, splits.digest):
            raise UserError(f"the text '{config.data}' is not the one that was searched on: put that back.")
        return splits

    if data is None:
        read()
    return loaded, read, view_of(loaded.model, loaded.family, config, masks)


def _images(
    config: SearchConfig, masks: bool, progress: Progress
) -> tuple[LoadedModel, Callable[[], Splits], BlockView]:
    """A network that reads images, samples of these by number, and its blocks.

    Raises:
        UserError: something is configured that there is for language models alone.
    """
    if "roofline" in config.budgets:
        raise UserError("the budget roofline is of language models alone so far: latency, activation or macs here.")
    if config.workload.phase == "decode":
        raise UserError(
            "workload.phase=decode is of language models: a network that reads images runs whole images, prefill."
        )
    if config.device_memory is not None or masks:
        what = "the agent's masks are" if masks else "device_memory is"
        raise UserError(f"{what} for language models alone so far.")
    if (config.workers or 1) > 1 or config.ray_address:
        raise UserError(
            "networks that read images are searched by one worker so far: leave --workers and --ray-address."
        )
    progress("loading the model", 0.0)
    name = str(config.model)
    if is_module(name):
        loaded = load_module(name, config.device, config.dtype)
    else:
        loaded = load_model(name, config.device, config.dtype, config.trust_remote_code, task="images")
    given = config.image_mean is not None and config.image_std is not None
    usual = (None, None) if loaded.is_plain or given else preprocessing(loaded.path)
    images = read_images(config.data, config.image_mean or usual[0], config.image_std or usual[1])
    splits = split_images(images, config.sequence_length, _asked(config), config.data_seed)
    view = image_view(loaded.model, loaded.family, images.to(config.device), config.mlp_group)
    check_labels(images, view(splits.search[:1, :1].to(config.device)).shape[-1])
    return loaded, lambda: splits, view


def _asked(config: SearchConfig) -> dict[str, int | None]:
    return {name: getattr(config, f"{name}_sequences") for name in ("reconstruction", "search", "validation")}


def view_of(model: nn.Module, family: Family, config: SearchConfig, masks: bool) -> BlockView:
    """The network's blocks, left at `config.home()` and brought to the device in turn where that is configured.

    Raises:
        UserError: the device's memory does not even hold one block.
    """
    view = BlockView(model, family, config.mlp_group)
    if config.device_memory is not None:
        view.stream(config.device, config.device_memory, config.batch_size(), config.sequence_length, masks)
    return view


def masked_weights(
    view: BlockView, units: Sequence[Unit], store: LevelStore, moments: Path | None, dtype: torch.dtype
) -> MaskedWeights:
    """Consumers' weights of masks, computed where there is room."""
    widths = [width for row in view.widths for width in row]
    bench = None
    if view.streamer is not None and moments is not None:
        needed = max(sum(workspace_bytes(width.consumer_weight) for width in row) for row in view.widths)
        bench = view.streamer.device if view.streamer.set_aside(needed) else torch.device("cpu")
    return MaskedWeights(store, units, widths, moments, dtype, bench)


def _stored(
    config: SearchConfig,
    loaded: LoadedModel,
    read: Callable[[], Splits],
    data: str,
    view: BlockView,
    units: Sequence[Unit],
    masks: bool,
    progress: Progress,
) -> tuple[LevelStore, Path | None]:
    """The level store, and the file of moments where masks are reconstructed; built unless they are there."""
    criterion, dtype = load_criterion(config.criterion), loaded.checkpoint_dtype
    parts = loaded.digest, data, str(config.mlp_group)
    levels = cache_directory() / "levels" / store_key(units, *parts, config.criterion, str(dtype))
    moments = cache_directory() / "moments" / f"{store_key([], *parts)}.safetensors"
    keep_moments = masks and criterion.reconstructs
    if not is_complete(levels) or (keep_moments and not moments.is_file()):
        reading = view, read().reconstruction.to(config.device), config.batch_size()
        evidence = None
        if not is_complete(levels):
            evidence = gather(criterion, *reading, partial(progress, "taking derivatives"))
        if keep_moments:
            collected = list(collect(*reading, partial(progress, "collecting moments")))
            save_moments(moments, units, collected)
        if not is_complete(levels):
            rows = collected if keep_moments else collect(*reading)  # which holds those of one block at a time
            build(levels, view, units, rows, criterion, dtype, partial(progress, "building levels"), evidence)
    return LevelStore(levels, units, config.home()), moments if keep_moments else None


def units_of(view: BlockView, config: SearchConfig) -> list[Unit]:
    """The units of a network at the configured levels, in order."""
    units = []
    for b, widths in enumerate(view.widths):
        for width in widths:
            groups, mlp = width.width.groups, width.width.kind.startswith("mlp")
            if mlp and groups * config.mlp_group != width.consumer_weight.shape[1]:
                raise UserError(
                    f"mlp_group={config.mlp_group} does not divide {width.consumer_weight.shape[1]} neurons."
                )
            round_to = max(1, config.round_to // config.mlp_group) if mlp else 1
            kept = kept_groups(groups, config.fractions(), round_to, width.width.bundles.size)
            units.append(width.unit(b, kept if width.width.droppable else tuple(k for k in kept if k)))
    return units


def space_of(
    units: list[Unit],
    config: SearchConfig,
    masks: bool = False,
    metrics: Mapping[str, Metric] | None = None,
    task: Task = "text",
) -> SearchSpace:
    """The search space: costs of every metric that is budgeted or always shown, and absolute budgets.

    Args:
        masks: single groups may be kept or removed.
        metrics: those that were made for the network, by name; others are loaded.
        task: what the network reads.

    Raises:
        UserError: a metric is no metric (autoprune/budgets/metric.py), or a budget cannot be met.
    """
    workload, made = config.workload_of(), metrics or {}
    names = list(dict.fromkeys([*config.budgets, "params", "macs"]))
    costs = {metric: cost_rows(metric, units, workload, made.get(metric)) for metric in names}
    fixed = {metric: fixed_cost(metric, made.get(metric)) for metric in names}
    measures = {name: str(metric.measure) for name, metric in made.items() if metric.measure is not None}
    peaks = [name for name, metric in made.items() if metric.peak]
    if peaks and masks:
        raise UserError(f"the budget {peaks[0]} is one on levels: leave it, or the agent's masks.")
    dense = {
        metric: max(fixed[metric], *(row[0] for row in rows))
        if metric in peaks
        else fixed[metric] + sum(row[0] for row in rows)
        for metric, rows in costs.items()
    }
    budgets = {m: bound * dense[m] if bound <= 1 else bound for m, bound in config.budgets.items()}
    group_costs: dict[str, list[list[float]]] = {}
    if masks:
        single = [replace(unit, kept=tuple(range(unit.groups, -1, -1))) for unit in units]
        rows = {metric: cost_rows(metric, single, workload, made.get(metric)) for metric in names}
        group_costs = {metric: [row[::-1] for row in rows[metric]] for metric in names}
    return SearchSpace(units, costs, budgets, group_costs, fixed, measures, task, peaks)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device '{device}' is not usable here: {str(error).splitlines()[0]}") from error


def _check_length(loaded: LoadedModel, length: int) -> None:
    longest = getattr(loaded.model.config, "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise UserError(f"sequence_length={length} is beyond the model's {longest} positions.")


def _check_vocabulary(loaded: LoadedModel, tokens_NT: Tensor) -> None:
    model: Any = loaded.model
    embeddings = model.get_input_embeddings().weight.shape[0]
    highest = int(tokens_NT.max()) if tokens_NT.numel() else 0
    if highest >= embeddings:
        raise UserError(
            f"the tokenizer in '{loaded.path}' gives token {highest}, and the model embeds {embeddings} tokens: it is "
            "another model's tokenizer."
        )
