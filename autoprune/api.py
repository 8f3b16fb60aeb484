"""The Python interface. It offers the same commands as the command line."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SkipValidation

from autoprune import given_models, objects, publishing, rounds, rundir
from autoprune.arguments import NOT_GIVEN, Budgets, checked, given
from autoprune.callbacks import CallbacksGiven
from autoprune.comparing import comparison
from autoprune.comparing.comparison import Comparison
from autoprune.config import LIMITS, PLACES, load_config
from autoprune.data.live import evaluated_on, named
from autoprune.data_names import Wanted
from autoprune.errors import UserError
from autoprune.evaluation.timing import speeds
from autoprune.exporting import reopen
from autoprune.ports.task import Progress
from autoprune.provenance import proposal_of
from autoprune.recovery import finetuning
from autoprune.recovery.finetuning import Recovered
from autoprune.refits import refit
from autoprune.result import SearchResult
from autoprune.result_file import load_result
from autoprune.showing import Showing, showing
from autoprune.task_choice import measure, task_of
from autoprune.validation import mean_losses, total_macs, total_params

AtLeast1 = Annotated[int, Field(ge=1)]
Model = Any
"""A path, a name, or a live model with its tokenizer or processor (given_models.py)."""


@checked
def search(
    model: SkipValidation[Model] = NOT_GIVEN,
    data: SkipValidation[Any] = NOT_GIVEN,
    budgets: Budgets = NOT_GIVEN,
    agent: SkipValidation[Any] = NOT_GIVEN,
    seed: SkipValidation[int] = NOT_GIVEN,
    max_evals: SkipValidation[int | None] = NOT_GIVEN,
    max_tokens: SkipValidation[int | None] = NOT_GIVEN,
    out: str | Path | None = None,
    config: str | Path | None = None,
    progress: Showing = None,
    callbacks: SkipValidation[CallbacksGiven] = None,
    tokenizer: SkipValidation[Any] = None,
    processor: SkipValidation[Any] = None,
    **settings: Any,
) -> SearchResult:
    """Search the best pruning policy within budgets.

    Args:
        model: Hugging Face directory, hub name or `FILE.py:FUNCTION`, or a live model: a `PreTrainedModel` or an
            `nn.Module`, which is left as it is. The default, None, is the embedded model.
        data: a name as `--data` takes, several, or a mapping from name to weight; a text or a list of texts; a
            `datasets.Dataset`, a `DataLoader` or any iterable of batches (docs/guides/data.md). The default, None, is
            Python's own documentation.
        budgets: a mapping from metric to bound. A bound up to 1 is a fraction of the dense network; a larger one is
            absolute. A bound without a metric bounds params. Bounds may be texts such as "50%", "-30%" (removed) or
            "1.2M", and a budget may be a text such as "macs=0.5". The default is 0.5.
        agent: a name from `autoprune list agents`, `package.module:Object`, a class or an instance. The default is
            `evolution`.
        seed: random seed of the agent. The default is 0.
        max_evals: limit on the evaluations, the policies scored.
        max_tokens: limit on policies x tokens, or policies x images, scored.
        out: directory of the run. None makes a new one in `runs/`.
        config: a YAML file of settings. Arguments that are given take precedence.
        progress: whether progress is shown. The default, None, shows it on a terminal and in a notebook. True shows it
            everywhere, False nowhere. A function is called with the stage and the share of it that is done.
        callbacks: objects of `autoprune.Callback`, or functions that are called with the objective after every batch.
        tokenizer: the tokenizer of a live language model.
        processor: the image processor of a live model that reads images.
        settings: any other field of `SearchConfig`. `reward`, `criterion` and `loss` may be objects, and so may the
            metrics in `budgets`.

    Returns:
        The result, with `.policy`, `.loss` (validation), `.history` and `.export(path)`.

    Raises:
        UserError: a setting, the model, the data or a budget is wrong; the message says how to mend it.
    """
    data = named(data, settings.get("sequence_length"))
    own = given(
        model=model, data=data, budgets=budgets, agent=agent, seed=seed, max_evals=max_evals, max_tokens=max_tokens
    )
    own = given_models.with_model(own | settings | {"tokenizer": tokenizer, "processor": processor}, config is None)
    chosen = load_config(Path(config) if config else None, own)
    with showing(progress, callbacks) as told:
        return rounds.start(chosen, Path(out) if out else None, told)


@checked
def compare(
    agents: SkipValidation[Any],
    seeds: int | Sequence[int] = 3,
    budgets: Budgets = NOT_GIVEN,
    out: str | Path | None = None,
    config: str | Path | None = None,
    progress: Showing = None,
    callbacks: SkipValidation[CallbacksGiven] = None,
    **settings: Any,
) -> Comparison:
    """Search with several agents and seeds within the same limits, and rank the agents.

    The model is loaded once. A second call with the same `out` continues the comparison. It may add agents and seeds.

    Args:
        agents: names from `autoprune list agents`, `package.module:Object`, classes or instances: a list, or one text
            with commas.
        seeds: the number of seeds, counted from the setting `seed` (0), or a list of seeds.
        budgets: as in `search`.
        out: directory of the comparison. None makes a new one in `runs/`.
        config: a YAML file of settings. Arguments take precedence.
        progress: whether progress is shown, as in `search`.
        callbacks: as in `search`. They are told of every search.
        settings: any other field of `SearchConfig`, for all agents, and `tokenizer` or `processor` of a live model.
            `agent_options` maps each agent to its settings.

    Returns:
        The comparison, with `.table`, `.curves`, `.league` and `.path`.

    Raises:
        UserError: a setting, the model, the data or a budget is wrong, or no search has an answer.
    """
    data = named(settings.pop("data", NOT_GIVEN), settings.get("sequence_length"))
    own = given_models.with_model(given(budgets=budgets, data=data) | settings, config is None)
    common, names = load_config(Path(config) if config else None, own), objects.names_of("agents", agents)
    chosen = range(common.seed, common.seed + seeds) if isinstance(seeds, int) else seeds
    path = Path(out) if out else rundir.new_run_path("compare", common.seed)
    with showing(progress, callbacks, path) as told:
        return comparison.compare(common, names, list(chosen), path, told)


@checked
def resume(
    path: str | Path,
    progress: Showing = None,
    callbacks: SkipValidation[CallbacksGiven] = None,
    model: SkipValidation[Any] = None,
    parts: SkipValidation[Sequence[Any]] = (),
    tokenizer: SkipValidation[Any] = None,
    processor: SkipValidation[Any] = None,
    **places: Any,
) -> SearchResult:
    """Continue an interrupted run. A finished run gives its result again.

    Args:
        path: the run's directory.
        progress: whether progress is shown, as in `search`.
        callbacks: as in `search`. They are told of old scores again.
        model: the live model of the run, where this process or the cache does not have it. It must be the same one.
        parts: the agent, reward, metrics, criterion and loss that were given as objects in another process.
        tokenizer: that of the live model.
        processor: that of the live model.
        places: settings of where it runs: `workers`, `ray_address`, `gpus_per_worker`, `device_memory`. They replace
            the run's own. The limits `max_evals`, `max_tokens` and `max_time` are taken, too, and the run keeps them:
            it ends as a run that was started with them.

    Raises:
        UserError: the run cannot continue, the path is a comparison (call `compare`), another setting is given, or a
            limit is lower than what was spent.
    """
    known = PLACES | {*LIMITS}
    for name in set(places) - known:
        raise UserError(f"resume takes {', '.join(sorted(known))}: '{name}' stays as the run has it.")
    if comparison.is_comparison(Path(path)):
        raise UserError(f"'{path}' is a comparison: `autoprune.compare(..., out='{path}')` goes on with it.")
    if model is not None or parts:
        given_models.give_again(Path(path), parts, {"model": model, "tokenizer": tokenizer, "processor": processor})
    with showing(progress, callbacks) as told:
        return rounds.resume(Path(path), told, places)


@checked
def load(path: str | Path) -> SearchResult | Comparison:
    """Load the result of a run, or of a comparison, from its directory.

    Only files are read. The network and its data are loaded when they are needed, as by `.model()` and `.export()`.

    Args:
        path: the directory.

    Raises:
        UserError: there is no run, it has no result yet, or a file is damaged.
    """
    return comparison.load(Path(path)) if comparison.is_comparison(Path(path)) else load_result(Path(path))


@checked
def finetune(
    path: str | Path,
    epochs: int | None = None,
    seed: int = 0,
    lora: int = 0,
    progress: Showing = None,
    callbacks: SkipValidation[CallbacksGiven] = None,
    **settings: Any,
) -> Recovered:
    """Fine-tune the policy of a run. The dense network and the labels (the text itself, for text) teach it.

    Args:
        path: the run's directory. The network is written to its `finetuned/network`.
        epochs: passes over the run's data without the validation split. With 0 the network is only refitted, which
            takes seconds. With None, `max_steps`, `max_tokens` (or images) or `max_time` (seconds) ends training.
        seed: random seed of the order of examples, of shifts and mirrors, and of adapters.
        lora: rank of adapters, which are trained instead of the weights and then merged. 0 trains all weights.
        progress: whether progress is shown, as in `search`.
        callbacks: as in `search`; `on_step` is called after every step.
        settings: any other field of `training.TrainingSettings`, such as `lr=1e-4`. The defaults depend on the kind of
            network and on whether adapters are trained.

    Returns:
        The measurements of the dense network and of the pruned one before and after, on the validation split, and the
        path of the export.

    Raises:
        UserError: a setting is wrong, the run is not finished, its `finetuned/` was begun with other settings, the
            training diverges, or the disk is full.
    """
    with showing(progress, callbacks) as told:
        return finetuning.finetune(Path(path), {"epochs": epochs, "seed": seed, "lora": lora, **settings}, told)


push = checked(publishing.push)


@checked
def evaluate(
    path: str | Path,
    data: SkipValidation[Any] = None,
    sequence_length: AtLeast1 = NOT_GIVEN,
    max_sequences: AtLeast1 = 64,
    device: str = NOT_GIVEN,
    dtype: str = NOT_GIVEN,
    progress: Showing = None,
    data_column: str | None = None,
    data_split: str | None = None,
) -> dict[str, Any]:
    """Measure loss against the labels, quality, size and speed of a network or of a run's policy.

    Parameters and multiply-accumulates are those of the whole network. The task chooses the measures: a language model
    gets `cross_entropy` and `perplexity`, a run on images gets `accuracy` and counts images instead of tokens. A run
    is timed beside its dense network.

    Args:
        path: directory of a network in Hugging Face form (exported or not), or of a run.
        data: as `search` takes. None is Python's own documentation, or the validation split of a run.
        sequence_length: tokens in a sequence, 512 by default. A run keeps its own.
        max_sequences: limit on the number of sequences, from the start of the text.
        device: torch device, `cpu` by default. A run keeps its own.
        dtype: data type to compute in, `auto` by default, as in a search. A run keeps its own.
        data_column: column of records that holds the texts; None guesses.
        data_split: split of a data set; None is `train`, or the only one.
        progress: whether progress is shown, as in `search`.

    Raises:
        UserError: the network or the text is missing, they do not fit, or an argument contradicts the run's setting.
    """
    own = given(sequence_length=sequence_length, device=device, dtype=dtype)
    text = evaluated_on(data, sequence_length if "sequence_length" in own else None, data_column, data_split)
    with showing(progress) as told:
        if (Path(path) / "config.yaml").is_file():
            return _evaluate_run(Path(path), text, max_sequences, own, told.on_stage)
        chosen: dict[str, Any] = {"sequence_length": 512, "device": "cpu", "dtype": "auto"} | own
        task = task_of(None, str(path))
        return task.evaluate_directory(Path(path), text, max_sequences=max_sequences, progress=told.on_stage, **chosen)


def _evaluate_run(
    path: Path, data: Wanted | str | None, max_sequences: int, asked: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    config = load_config(path / "config.yaml")
    for name, value in asked.items():
        if value != (kept := getattr(config, name)):
            raise UserError(f"the run '{path}' has {name}={kept} and is evaluated with it, not with {value}: leave it.")
    assembly, policy = reopen(path, progress)
    proposal = proposal_of(assembly, policy)
    tokens_NT, task, said = assembly.splits.validation, assembly.task, assembly.task.words
    if data is not None:
        tokens_NT = task.samples_of(assembly, data)
    tokens_NT = tokens_NT[:max_sequences]
    names = [task.label_loss, *task.measured]
    network = proposal if policy.refit is None else refit(assembly, proposal, policy.refit.digest, progress)
    losses = mean_losses(assembly, tokens_NT, [network], names, progress)[0].tolist()
    measured = task.quality(dict(zip(names, losses, strict=True)))
    places = [partial(assembly.placer.place, one) for one in (assembly.space.dense, proposal)]
    dense, own = speeds(places, assembly.view, tokens_NT[:1].to(assembly.config.device), partial(progress, "timing"))
    return {
        "path": str(path),
        **{measure(key, said).name.replace("-", "_").replace(" ", "_"): value for key, value in measured.items()},
        "params": total_params(assembly, proposal),
        f"macs_per_{said.item}": total_macs(assembly, proposal),
        said.items: tokens_NT.numel(),
        f"{said.items}_per_second": own.per_second,
        "speed_spread": own.spread,
        f"dense_{said.items}_per_second": dense.per_second,
    }
