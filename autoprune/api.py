"""The same as the command line, in Python: three lines from a model to a smaller one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoprune import rundir, study, tuning
from autoprune.assembly import Progress
from autoprune.calibration.text import read_text, sequences
from autoprune.comparing import comparison
from autoprune.comparing.comparison import Comparison
from autoprune.config import PLACES, load_config, parse_budget
from autoprune.errors import UserError
from autoprune.evaluation.report import evaluate_directory
from autoprune.evaluation.timing import tokens_per_second
from autoprune.provenance import proposal_of
from autoprune.study import SearchResult
from autoprune.tuning import Tuned
from autoprune.validation import total_params
from autoprune.wording import words


def search(
    model: str | None = None,
    data: str | None = None,
    budgets: Mapping[str, float | str] | None = None,
    agent: str = "evolution",
    seed: int = 0,
    max_evals: int | None = None,
    max_tokens: int | None = None,
    out: str | Path | None = None,
    config: str | Path | None = None,
    **settings: Any,
) -> SearchResult:
    """Search the best pruning policy within budgets.

    Args:
        model: Hugging Face directory, hub name or `FILE.py:FUNCTION`; None is the embedded model.
        data: calibration text, or images as a .npz or a folder; None is Python's own documentation.
        budgets: metric -> bound, up to 1 as a fraction of dense, above absolute ("1.2M" is understood).
        agent: a name from `autoprune list agents`, or `package.module:Object`.
        seed: of the agent.
        max_evals: policies scored at most.
        max_tokens: policies x tokens, or images, scored at most.
        out: the run's directory; None is a new one in `runs/`.
        config: a YAML file of settings, which the arguments override.
        settings: anything else in `SearchConfig`.

    Returns:
        The result, with `.policy`, `.loss` (validation), `.history` and `.export(path, to="hf")`.

    Raises:
        UserError: a setting, the model, the data or a budget is wrong; the message says how to mend it.
    """
    given = _with_budgets(settings, budgets)
    defaults = {"model": None, "data": None, "agent": "evolution", "seed": 0, "max_evals": None, "max_tokens": None}
    arguments = {"model": model, "data": data, "agent": agent, "seed": seed}
    arguments |= {"max_evals": max_evals, "max_tokens": max_tokens}
    given |= {key: value for key, value in arguments.items() if value != defaults[key]}
    return study.start(load_config(Path(config) if config else None, given), Path(out) if out else None)


def compare(
    agents: Sequence[str],
    seeds: int | Sequence[int] = 3,
    budgets: Mapping[str, float | str] | None = None,
    out: str | Path | None = None,
    config: str | Path | None = None,
    **settings: Any,
) -> Comparison:
    """Search with several agents and seeds within the same limits, and rank the agents.

    The model is loaded once. Called again with the same `out`, it goes on where it was; agents and seeds may be added.

    Args:
        agents: names from `autoprune list agents`, or `package.module:Object`.
        seeds: how many, counted from the setting `seed` (0); or which.
        budgets: as `search` takes them.
        out: the directory; None is a new one in `runs/`.
        config: a YAML file of settings, which the arguments override.
        settings: anything else in `SearchConfig`, common to all; `agent_options` is a mapping for each agent.

    Returns:
        The comparison, with `.table`, `.curves`, `.league` and `.path`.

    Raises:
        UserError: a setting, the model, the data or a budget is wrong, or no search has an answer.
    """
    common = load_config(Path(config) if config else None, _with_budgets(settings, budgets))
    chosen = range(common.seed, common.seed + seeds) if isinstance(seeds, int) else seeds
    path = Path(out) if out else rundir.new_run_path("compare", common.seed)
    return comparison.compare(common, list(agents), list(chosen), path)


def resume(path: str | Path, **places: Any) -> SearchResult:
    """Go on with an interrupted run.

    Args:
        path: the run's directory.
        places: `workers`, `ray_address`, `gpus_per_worker`, `device_memory`, where they are not to be the run's own.

    Raises:
        UserError: it cannot go on, or is a comparison, with which `compare` goes on; or another setting is given.
    """
    for name in set(places) - PLACES:
        raise UserError(f"resume takes {', '.join(sorted(PLACES))}: '{name}' stays as the run has it.")
    if comparison.is_comparison(Path(path)):
        raise UserError(f"'{path}' is a comparison: `autoprune.compare(..., out='{path}')` goes on with it.")
    return study.resume(Path(path), places=places)


def finetune(
    path: str | Path,
    epochs: int,
    seed: int = 0,
    lora: int = 0,
    progress: Progress = lambda stage, share: None,
    **settings: Any,
) -> Tuned:
    """Fine-tune the policy of a run, taught by the dense network and by the text or the labels.

    Args:
        path: the run's directory; the network goes to its `finetuned/network`.
        epochs: passes over all of the run's data but the validation split; with 0 it is only refitted, in seconds.
        seed: of the order of sequences or images, of shifts, mirrors and adapters.
        lora: rank of adapters that are trained in the place of the weights, and merged in the end; 0 trains these.
        progress: is told the stage and how much of it is done.
        settings: anything else in `tuning.Tuning`, as `lr=1e-4`; kinds of networks and adapters have defaults of
            their own.

    Returns:
        What the dense network, the pruned one before and after are worth on the validation split, and the export.

    Raises:
        UserError: a setting is wrong, the run is not finished, its `finetuned/` was begun with other settings, the
            training diverges, or the disk is full.
    """
    return tuning.finetune(Path(path), {"epochs": epochs, "seed": seed, "lora": lora, **settings}, progress)


def evaluate(
    path: str | Path,
    data: str | None = None,
    sequence_length: int = 512,
    max_sequences: int = 64,
    device: str = "cpu",
    dtype: str = "auto",
) -> dict[str, Any]:
    """Cross-entropy, perplexity, size and speed of a network, or of a run's policy, on a text.

    A run on images has `accuracy`, `images` and `images_per_second` in the place of `perplexity` and tokens.

    Args:
        path: a directory in Hugging Face form, exported or not, or a run's.
        data: text file; None is Python's own documentation, for a run its own validation split.
        sequence_length: tokens of a sequence; a run keeps its own.
        max_sequences: sequences at most, from the start of the text.
        device: torch device; a run keeps its own.
        dtype: what to compute in, `auto` as in a search; a run keeps its own.

    Raises:
        UserError: there is no such network or text, or they do not fit.
    """
    if (Path(path) / "config.yaml").is_file():
        return _evaluate_run(Path(path), data, max_sequences)
    return evaluate_directory(Path(path), data, sequence_length, max_sequences, device, dtype)


def _with_budgets(settings: Mapping[str, Any], budgets: Mapping[str, float | str] | None) -> dict[str, Any]:
    if budgets is None:
        return dict(settings)
    parsed = dict(parse_budget(f"{metric}={bound}") for metric, bound in budgets.items())
    return {**settings, "budgets": parsed}


def _evaluate_run(path: Path, data: str | None, max_sequences: int) -> dict[str, Any]:
    assembly, policy = study.reopen(path)
    proposal = proposal_of(assembly, policy)
    tokens_NT = assembly.splits.validation
    images = assembly.loaded.family.task == "images"
    if data is not None and images:
        raise UserError("a run on images is evaluated on its own validation split: leave --data.")
    if data is not None:
        tokens_NT = sequences(read_text(data), assembly.loaded.tokenizer, assembly.config.sequence_length)
    tokens_NT = tokens_NT[:max_sequences]
    if not len(tokens_NT):
        raise UserError(f"the text '{data}' is shorter than one sequence of {assembly.config.sequence_length} tokens.")
    evaluator = assembly.evaluator(tokens_NT, "ce", "error", once=True)
    ce, error = (float(loss) for loss in evaluator.score_each([proposal], range(len(tokens_NT))).mean(axis=(1, 2)))
    assembly.placer.place(proposal)
    counted = words(assembly.space.task).items
    return {
        "path": str(path),
        "cross_entropy": ce,
        **({"accuracy": 1 - error} if images else {"perplexity": float(np.exp(ce))}),
        "params": total_params(assembly, proposal),
        counted: tokens_NT.numel(),
        f"{counted}_per_second": tokens_per_second(assembly.view, tokens_NT[:1].to(assembly.config.device)),
    }
