"""From a configuration to everything a search or an export needs: network, splits, space, store, evaluators.

Read top to bottom: model -> text -> units -> costs -> level store -> sorted network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoprune import registry
from autoprune.budgets.metric import cost_rows
from autoprune.calibration.moments import collect
from autoprune.calibration.text import Splits, read_text, sequences, split
from autoprune.config import SearchConfig
from autoprune.errors import UserError
from autoprune.evaluation.evaluator import REFERENCE_BYTES, Evaluator, sort_groups
from autoprune.levels.store import LevelStore, build, cache_directory, is_complete, store_key
from autoprune.models.blocks import BlockView
from autoprune.models.loading import LoadedModel, load_model
from autoprune.space import SearchSpace, Unit, kept_groups
from autoprune.workload import Workload

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Assembly:
    """What `assemble` put together."""

    config: SearchConfig
    loaded: LoadedModel
    splits: Splits
    view: BlockView
    space: SearchSpace
    store: LevelStore

    def evaluator(self, tokens_NT: Tensor, *losses: str, once: bool = False) -> Evaluator:
        """An evaluator of named losses on sequences of the user's choice.

        Args:
            once: every sequence will be asked for once, so nothing of the dense network need be remembered.
        """
        memory = 0 if once else REFERENCE_BYTES
        measured = [registry.load("losses", loss)() for loss in losses]
        tokens_NT = tokens_NT.to(self.config.device)
        return Evaluator(self.view, self.space, self.store, tokens_NT, measured, self.config.batch_size(), memory)


def assemble(config: SearchConfig, progress: Progress = lambda stage, share: None) -> Assembly:
    """Load, cut and prepare; builds the level store unless an earlier search left it.

    Raises:
        UserError: whatever is wrong with the model, the data, the budgets or the cache.
    """
    criterion = registry.load("criteria", config.criterion)()
    for kind, name in [("agents", config.agent), ("losses", config.loss), *(("budgets", m) for m in config.budgets)]:
        registry.load(kind, name)
    _check_device(config.device)
    text = read_text(config.data)
    progress("loading the model", 0.0)
    loaded = load_model(config.model, config.device, config.dtype, config.trust_remote_code)
    _check_length(loaded, config.sequence_length)
    limits = {name: getattr(config, f"{name}_sequences") for name in ("reconstruction", "search", "validation")}
    tokens_NT = sequences(text, loaded.tokenizer, config.sequence_length)
    _check_vocabulary(loaded, tokens_NT)
    splits = split(tokens_NT, limits, config.data_seed)
    view = BlockView(loaded.model, loaded.family, config.mlp_group)
    units = units_of(view, config)
    space = space_of(units, config)
    dtype = str(loaded.checkpoint_dtype)
    key = store_key(units, loaded.digest, splits.digest, config.criterion, dtype, str(config.mlp_group))
    directory = cache_directory() / "levels" / key
    if not is_complete(directory):
        reconstruction_NT = splits.reconstruction.to(config.device)
        moments = collect(
            view, reconstruction_NT, config.batch_size(), lambda share: progress("collecting moments", share)
        )
        build(
            directory,
            view,
            units,
            moments,
            criterion,
            loaded.checkpoint_dtype,
            lambda s: progress("building levels", s),
        )
    store = LevelStore(directory, units, config.device)
    sort_groups(view, store)
    return Assembly(config, loaded, splits, view, space, store)


def units_of(view: BlockView, config: SearchConfig) -> list[Unit]:
    """The units of a network at the configured levels, in order."""
    units = []
    for b, widths in enumerate(view.widths):
        for width in widths:
            groups, mlp = width.width.groups, width.width.kind == "mlp"
            if mlp and groups * config.mlp_group != width.consumer_weight.shape[1]:
                raise UserError(
                    f"mlp_group={config.mlp_group} does not divide {width.consumer_weight.shape[1]} neurons."
                )
            round_to = max(1, config.round_to // config.mlp_group) if mlp else 1
            units.append(width.unit(b, kept_groups(groups, config.fractions(), round_to)))
    return units


def space_of(units: list[Unit], config: SearchConfig) -> SearchSpace:
    """The search space: costs of every metric that is budgeted or always shown, and absolute budgets.

    Raises:
        UserError: a metric is no metric (autoprune/budgets/metric.py), or a budget cannot be met.
    """
    workload = Workload(context=config.sequence_length)
    metrics = dict.fromkeys([*config.budgets, "params", "macs"])
    costs = {metric: cost_rows(metric, units, workload) for metric in metrics}
    dense = {metric: sum(row[0] for row in rows) for metric, rows in costs.items()}
    budgets = {m: bound * dense[m] if bound <= 1 else bound for m, bound in config.budgets.items()}
    return SearchSpace(units, costs, budgets)


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
