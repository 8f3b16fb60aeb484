"""The same as the command line, in Python: three lines from a model to a smaller one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune import study
from autoprune.config import load_config, parse_budget
from autoprune.study import SearchResult


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
        model: Hugging Face directory or hub name; None is the embedded model.
        data: calibration text file; None is Python's own documentation.
        budgets: metric -> bound, up to 1 as a fraction of what is prunable, above absolute ("1.2M" is understood).
        agent: a name from `autoprune list agents`, or `package.module:Object`.
        seed: of the agent.
        max_evals: policies scored at most.
        max_tokens: policies x tokens scored at most.
        out: the run's directory; None is a new one in `runs/`.
        config: a YAML file of settings, which the arguments override.
        settings: anything else in `SearchConfig`.

    Returns:
        The result, with `.policy`, `.loss` (validation), `.history` and `.export(path, to="hf")`.

    Raises:
        UserError: a setting, the model, the data or a budget is wrong; the message says how to mend it.
    """
    given: dict[str, Any] = dict(settings)
    if budgets is not None:
        given["budgets"] = dict(parse_budget(f"{metric}={bound}") for metric, bound in budgets.items())
    defaults = {"model": None, "data": None, "agent": "evolution", "seed": 0, "max_evals": None, "max_tokens": None}
    arguments = {"model": model, "data": data, "agent": agent, "seed": seed, "max_evals": max_evals, "max_tokens": max_tokens}
    given |= {key: value for key, value in arguments.items() if value != defaults[key]}
    return study.start(load_config(Path(config) if config else None, given), Path(out) if out else None)


def resume(path: str | Path) -> SearchResult:
    """Go on with an interrupted run."""
    return study.resume(Path(path))
