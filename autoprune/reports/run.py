"""A run's directory read into one record. Nothing is written, so that a run at work can be read too."""

import math
from pathlib import Path

from autoprune import rundir
from autoprune.config import SearchConfig, load_config
from autoprune.errors import UserError
from autoprune.files.reading import DAMAGE, explained, read_bytes, read_json, reason
from autoprune.journal import BYTES
from autoprune.journal import FILE as JOURNAL
from autoprune.policy import Policy
from autoprune.recovery.result import Finetuned, read_finetuned
from autoprune.reports.gathering import Gathering
from autoprune.reports.record import Best, Result, Run
from autoprune.rounds_file import read_rounds
from autoprune.space import SearchSpace
from autoprune.space_file import coverage_of, load_space
from autoprune.unit_statistics import UnitStatistics


def read_run(path: Path) -> Run:
    """Read a run, finished or not.

    Raises:
        UserError: there is no run, it is of a version without `space.json`, or one of its files is damaged.
    """
    rundir.check_is_run(path)
    config, space, statistics = load_config(path / "config.yaml"), *space_of(path)
    gathering = Gathering(space, config.sequence_length)
    with explained("the journal", path / JOURNAL):
        raw = read_bytes(path / JOURNAL, BYTES) if (path / JOURNAL).exists() else b""
    for number, line in enumerate(raw[: raw.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines(), 1):
        try:
            gathering.read(line)
        except DAMAGE as error:
            raise UserError(f"line {number} of the journal '{path / JOURNAL}' is damaged ({reason(error)}).") from error
    return record_of(path, config, space, statistics, gathering)


def record_of(
    path: Path,
    config: SearchConfig,
    space: SearchSpace,
    statistics: list[UnitStatistics],
    gathering: Gathering,
    at_work: bool = False,
) -> Run:
    """The record of a run from what was read of it, and from the files that end it.

    Args:
        path: its directory.
        config: its configuration.
        space: from its space file.
        statistics: from its space file.
        gathering: the scores of its journal.
        at_work: whether the search goes on. Its earlier end does not count then.

    Raises:
        UserError: a file is damaged.
    """
    covered = coverage_of(path)
    told = None if covered is None else str(covered["told"])
    policy, result = (None, None) if at_work else _end(path, space)
    scored = [*gathering.records.values()]
    if policy is None or result is None:
        return Run(
            path, config, space, statistics, scored, gathering.best, gathering.spent, gathering.history, None, None,
            coverage=told,
        )  # fmt: skip
    seen = [(tokens, seconds, math.inf if loss is None else loss) for tokens, seconds, loss in result.history]
    best = _found(policy, config.sequence_length)
    return Run(
        path, config, space, statistics, scored, best, result.spent, seen, policy, result, _finetuned(path), told,
        read_rounds(path),
    )  # fmt: skip


def _finetuned(path: Path) -> Finetuned | str | None:
    """What is beside the search does not keep its report from being made."""
    try:
        return read_finetuned(path)
    except UserError as error:
        return str(error)


def space_of(path: Path) -> tuple[SearchSpace, list[UnitStatistics]]:
    """The space file of a run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not (path / "space.json").is_file():
        raise UserError(
            f"the run '{path}' has no space.json: it is still preparing, or an earlier version of autoprune made it. "
            f"`autoprune resume {path}` writes it."
        )
    return load_space(path / "space.json")


def _found(policy: Policy, sequence_length: int) -> Best:
    loss, tokens = policy.losses.get("search"), policy.losses.get("search_tokens")
    known = [unit.level for unit in policy.units if unit.level is not None]
    return Best(
        tuple(unit.as_level for unit in policy.units),
        tuple(known) if len(known) == len(policy.units) else None,
        float(loss) if isinstance(loss, int | float) else math.inf,
        max(1, int(tokens) // sequence_length) if isinstance(tokens, int | float) else 1,
    )


def _end(path: Path, space: SearchSpace) -> tuple[Policy | None, Result | None]:
    """The two files that end a run; the policy is written first, and alone it does not."""
    if not ((path / "policy.json").is_file() and (path / "result.json").is_file()):
        return None, None
    policy = Policy.load(path / "policy.json")
    if [(unit.name, unit.groups) for unit in policy.units] != [(unit.name, unit.groups) for unit in space.units]:
        raise UserError(f"policy.json and space.json of '{path}' are of other units: `autoprune resume {path}`.")
    units = zip(policy.units, space.units, strict=True)
    if not space.group_costs and any(found.as_level not in unit.levels for found, unit in units):
        raise UserError(f"policy.json and space.json of '{path}' are of other levels: `autoprune resume {path}`.")
    with explained("the result", path / "result.json", f"`autoprune resume {path}` writes it anew"):
        return policy, Result.model_validate(read_json(path / "result.json"))
