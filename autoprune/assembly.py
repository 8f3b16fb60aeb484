"""Builds what a search or an export needs from a configuration: network, splits, space, level store, evaluators.

Read top to bottom: task -> network and data -> units -> costs -> level store -> sorted network.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from autoprune.budgets.bounds import absolute_bound, in_network
from autoprune.budgets.metric import cost_rows, fixed_cost, metric_of
from autoprune.calibration.inputs import collect_inputs
from autoprune.calibration.moments import collect
from autoprune.config import SearchConfig
from autoprune.coverage import Coverage
from autoprune.cutting.ends import unit_of_end
from autoprune.cutting.live import LiveWidth
from autoprune.errors import UserError
from autoprune.evaluation.evaluator import REFERENCE_BYTES, Evaluator, free_state_bytes, sort_groups
from autoprune.files.cache import cache_directory
from autoprune.forms import check_forms, check_together, chosen_forms, ordered
from autoprune.level import Level, form_of, group_levels
from autoprune.levels.criterion import workspace_bytes
from autoprune.levels.evidence import check_needs, gather
from autoprune.levels.form import live_form
from autoprune.levels.masked import MaskedWeights, save_moments
from autoprune.levels.placing import Placer
from autoprune.levels.store import LevelStore, build, is_complete, store_key
from autoprune.levels.sub_blocks import with_sub_blocks
from autoprune.networks import starting
from autoprune.networks.blocks import BlockView
from autoprune.ports.agent import load_agent
from autoprune.ports.criterion import load_criterion
from autoprune.ports.metric import Metric, Network, load_metric
from autoprune.ports.offer import Offer
from autoprune.ports.task import Prepared, Progress, Task
from autoprune.ports.training import TrainingSet
from autoprune.space import SearchSpace, Unit
from autoprune.training.candidate import CandidateTrainer
from autoprune.undominated import undominated
from autoprune.whole import whole_network
from autoprune.wording import OF_UNITS, STORED, Words


@dataclass(frozen=True)
class Assembly(Prepared):
    """The result of `assemble`.

    Args:
        task: what the network reads.
        network: a lock that is held while the network is used, because several searches may share it.
        coverage: the share of the network that is in units; None where it was not computed.
        dense: the original dense network, where the search starts from other weights; None if it is this network.
    """

    space: SearchSpace
    store: LevelStore
    placer: Placer
    metrics: Mapping[str, Metric]
    task: Task
    network: threading.Lock = field(default_factory=threading.Lock, compare=False)
    coverage: Coverage | None = None
    dense: Prepared | None = None

    @property
    def original(self) -> Prepared:
        """The dense network that losses compare with, and that teaches."""
        return self.dense or self

    @property
    def subject(self) -> str:
        """A name for what is scored (network, text, levels, loss). It stands in the first line of a journal."""
        return f"{self.store.directory.name}/{self.config.loss}"

    def save_metrics(self, run: Path) -> None:
        """Write the measurements of metrics to a run's directory, so that a resumed run has the same costs.

        Raises:
            UserError: the disk is full or not writable.
        """
        for metric in self.metrics.values():
            metric.save(run)

    def of(self, metric: str) -> Literal["prunable", "model"] | None:
        """What the total of a metric is of: what can be pruned, or the whole network. None: only the metric knows."""
        if metric in OF_UNITS:
            return self.config.of
        return "model" if metric in self.metrics and self.metrics[metric].whole else None

    def measure(self, metric: str) -> str | None:
        """The unit of measurement of a metric, if it has one."""
        measure = self.metrics[metric].measure if metric in self.metrics else None
        return None if measure is None else str(measure)

    def notices(self) -> list[str]:
        """Sentences that the network and the metrics have for the user."""
        forms = dict.fromkeys(form_of(level) for unit in self.space.units for level in unit.levels)
        of_forms = [form.notice(list(self.space.budgets)) for form in forms]
        told = [self.loaded.notice, *(metric.notice for metric in self.metrics.values()), *of_forms]
        return [notice for notice in told if notice]

    def evaluator(self, tokens_NT: Tensor, *losses: str, once: bool = False) -> Evaluator:
        """An evaluator of named losses on sequences of the user's choice.

        Args:
            once: whether every sequence is scored only once, so that results of the dense network need not be kept.
        """
        memory = 0 if once else REFERENCE_BYTES
        measured = [self.task.loss(loss) for loss in losses]
        tokens_NT = tokens_NT.to(self.config.device)
        states = self.config.state_memory or free_state_bytes(self.config.device)
        batch, trainer = self.config.batch_size(), None
        if not (once or self.view.streamed):
            trainer = CandidateTrainer(self.placer, self._examples, lambda: self.splits.reconstruction, batch)
        original = None if self.dense is None else self.dense.view
        return Evaluator(self.placer, tokens_NT, measured, batch, memory, states, trainer, original)

    def _examples(self) -> TrainingSet:
        """What candidates are trained on."""
        return self.task.training(self.original, candidates=True)


def assemble(
    config: SearchConfig,
    progress: Progress = lambda stage, share: None,
    masks: bool | None = None,
    run: Path | None = None,
    data: str | None = None,
) -> Assembly:
    """Load the network and the data, cut the network into units, and build the level store unless it exists.

    Args:
        masks: whether single groups can be kept or removed, which needs the moments; None asks the configured agent.
        run: the directory of the run, where metrics find what they measured when it was begun, and where the weights
            are that a later round starts from.
        data: hash of the splits of a finished search. The text is then read only when it is needed, and what only a
            search needs (metrics and budgets) is left out.

    Raises:
        UserError: the model, the data, the budgets or the cache are not usable.
    """
    task = config.chosen_task()
    load_criterion(config.criterion)  # so that what is wrong is told before the network is loaded
    task.loss(config.loss)
    check_forms(config.forms)
    if masks is None:
        masks = load_agent(config.agent).masks
    check_together(config, masks)
    for metric in () if data else config.budgets:
        load_metric(metric)
    _check_device(config.device)
    task.require(*features_of(config, masks))
    start = starting.start_of(run)
    if config.rounds > 1 and start is None:
        raise UserError(
            f"the weights that the last round of '{run}' starts from are not there: `autoprune resume {run}`."
        )
    prepared, original = starting.started(
        task.prepare(config, masks, progress, data), partial(task.prepare, config, masks, progress), start
    )
    loaded, read, view = prepared.loaded, prepared.read, prepared.view
    check_needs(config.criterion, load_criterion(config.criterion), view)
    units = [*units_of(view, config), *units_of_ends(view, config)]
    itemsize = loaded.checkpoint_dtype.itemsize
    network = Network(view, units, config.workload_of(), cache_directory(), run, progress, task=task, itemsize=itemsize)
    asked = config.model_copy(update={"budgets": {}}) if data else config
    metrics = {name: metric_of(name, network) for name in asked.budgets}
    whole = whole_network(prepared, task) if asked.budgets and config.of == "model" else None
    made = partial(space_of, config=asked, masks=masks, metrics=metrics, words=task.words, whole=whole)
    space = made(units)
    store, moments = _stored(prepared, task, data or read().digest, space.units, masks, progress)
    space, store = undominated(space, store, config, itemsize, made)
    if start is not None:
        space = space.with_floor(starting.floor_of(start, space.units))
    sort_groups(view, store)
    masked = masked_weights(view, space.units, store, moments, loaded.checkpoint_dtype) if masks else None
    placer, dense = Placer(view, space, store, masked), None if start is None else original
    return Assembly(config, loaded, read, view, space, store, placer, metrics, task, dense=dense)


def features_of(config: SearchConfig, masks: bool) -> list[str]:
    """The optional features that a configuration asks for, by their names in `FEATURES` (ports/task.py)."""
    asked = {
        "decode": config.workload.phase == "decode",
        "device_memory": config.device_memory is not None,
        "masks": masks,
        "workers": (config.workers or 1) > 1 or config.ray_address is not None,
    }
    return [*config.budgets, *(feature for feature, wanted in asked.items() if wanted)]


def masked_weights(
    view: BlockView, units: Sequence[Unit], store: LevelStore, moments: Path | None, dtype: torch.dtype
) -> MaskedWeights:
    """Consumers' weights of masks, computed where there is room."""
    widths = [width for row in view.widths for width in row]
    needed = max(sum(workspace_bytes(width.consumer_weight) for width in row) for row in view.widths)
    bench = None if moments is None else view.set_aside(needed)
    return MaskedWeights(store, units, widths, moments, dtype, bench)


def _stored(
    prepared: Prepared, task: Task, data: str, units: Sequence[Unit], masks: bool, progress: Progress
) -> tuple[LevelStore, Path | None]:
    """The level store, and the file of moments where masks are reconstructed; built unless they are there."""
    config, loaded, view = prepared.config, prepared.loaded, prepared.view
    criterion, dtype = load_criterion(config.criterion), loaded.checkpoint_dtype
    parts = loaded.digest, data, str(config.mlp_group)
    # criteria may order by derivatives of the label loss; stores that were built before there were others name none
    label_loss = [] if task.label_loss == Task.label_loss else [task.label_loss]
    levels = cache_directory() / "levels" / store_key(units, *parts, config.criterion, str(dtype), *label_loss)
    moments = cache_directory() / "moments" / f"{store_key([], *parts)}.safetensors"
    keep_moments = masks and criterion.reconstructs
    if not is_complete(levels) or (keep_moments and not moments.is_file()):
        reading = view, prepared.splits.reconstruction.to(config.device), config.batch_size()
        evidence = None
        if not is_complete(levels):
            evidence = gather(criterion, *reading, partial(progress, "taking derivatives"), task.loss(task.label_loss))
        if keep_moments:
            collected = list(collect(*reading, partial(progress, "collecting moments")))
            save_moments(moments, units, collected)
        if not is_complete(levels):
            rows = collected if keep_moments else collect(*reading)  # which holds those of one block at a time
            several = any(live_form(level).changes_producers for unit in units for level in unit.levels)
            inputs = with_sub_blocks(collect_inputs(*reading) if several else None, units, *reading)
            build(levels, view, units, rows, criterion, dtype, partial(progress, "building levels"), evidence, inputs)
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
            units.append(unit_with_levels(width, b, view, config, round_to))
    return units


def units_of_ends(view: BlockView, config: SearchConfig) -> list[Unit]:
    """Embeddings and head, if a budget counts how they are stored, and a form can have them."""
    forms = [one for one in chosen_forms(config.forms) if one.form.ends]
    if not forms or not set(config.budgets) & set(STORED):
        return []
    units = []
    for end in view.ends:
        dense = unit_of_end(end, len(view.blocks))
        offer = Offer(dense, end, view, config)
        found = [level for one in forms for level in one.form.levels(replace(offer, argument=one.argument))]
        units.append(replace(dense, levels=ordered(found, 1)))
    return units


def unit_with_levels(width: LiveWidth, block: int, view: BlockView, config: SearchConfig, round_to: int) -> Unit:
    """A unit with the levels of all forms that the search may use, the dense one first, by density.

    Raises:
        UserError: a form cannot be had for this unit, or no form gives a level besides the dense one.
    """
    groups = width.width.groups
    dense = width.unit(block, group_levels(groups, [groups]))
    offer = Offer(dense, width, view, config, round_to=round_to)
    found: list[Level] = []
    for one in chosen_forms(config.forms):
        found += one.form.levels(replace(offer, argument=one.argument))
    return replace(dense, levels=ordered(found, groups))


def space_of(
    units: list[Unit],
    config: SearchConfig,
    masks: bool = False,
    metrics: Mapping[str, Metric] | None = None,
    words: Words | None = None,
    whole: Mapping[str, float] | None = None,
) -> SearchSpace:
    """The search space: costs of every metric that is budgeted or always shown, and absolute budgets.

    Args:
        masks: single groups may be kept or removed.
        metrics: metrics that were made for this network, by name. Other metrics are loaded.
        words: of the task, for people.
        whole: params and macs of the dense network where the bounds on them are of the whole network; otherwise None.

    Raises:
        UserError: a metric breaks its contract (autoprune/budgets/metric.py), or a budget cannot be met.
    """
    workload, made = config.workload_of(), metrics or {}
    names = list(dict.fromkeys([*config.budgets, "params", "macs"]))
    measures = {name: str(metric.measure) for name, metric in made.items() if metric.measure is not None}
    peaks = [name for name, metric in made.items() if metric.peak]
    if peaks and masks:
        raise UserError(f"the budget {peaks[0]} is one on levels: leave it, or the agent's masks.")

    def costed(some: Sequence[Unit]) -> tuple[dict[str, list[list[float]]], dict[str, float]]:
        costs = {metric: cost_rows(metric, some, workload, made.get(metric)) for metric in names}
        fixed = {metric: fixed_cost(metric, made.get(metric)) for metric in names}
        for metric, total in (whole or {}).items():
            costs[metric], fixed[metric] = in_network(metric, some, costs[metric], total)
        return costs, fixed

    costs, fixed = costed(units)
    dense = {
        metric: max(fixed[metric], *(row[0] for row in rows))
        if metric in peaks
        else fixed[metric] + sum(row[0] for row in rows)
        for metric, rows in costs.items()
    }
    budgets = {m: absolute_bound(m, bound, dense[m], m in (whole or {})) for m, bound in config.budgets.items()}
    group_costs: dict[str, list[list[float]]] = {}
    if masks:
        single = [replace(unit, levels=group_levels(unit.groups, range(unit.groups, -1, -1))) for unit in units]
        group_costs = {metric: [row[::-1] for row in rows] for metric, rows in costed(single)[0].items()}
    return SearchSpace(units, costs, budgets, group_costs, fixed, measures, words, peaks)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        hint = " Did you mean 'cuda'?" if device.lower() in ("gpu", "nvidia", "cuda") and device != "cuda" else ""
        raise UserError(f"the device '{device}' is not usable here: {str(error).splitlines()[0]}{hint}") from error
