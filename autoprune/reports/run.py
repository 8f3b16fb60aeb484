"""A run's directory read into one record. Nothing is written, so that a run at work can be read too."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from autoprune import journal, rundir
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.files.reading import DAMAGE, explained, parse_json, read_bytes, read_json
from autoprune.journal import Score
from autoprune.policy import Policy
from autoprune.recovery.result import Finetuned, read_finetuned
from autoprune.reports.record import Best, Result, Run, Scored, Spent
from autoprune.space import Proposal, SearchSpace
from autoprune.space_file import coverage_of, load_space
from autoprune.unit_statistics import UnitStatistics


def read_run(path: Path) -> Run:
    """Read a run, finished or not.

    Raises:
        UserError: there is no run, it is of a version without `space.json`, or one of its files is damaged.
    """
    rundir.check_is_run(path)
    config, space, statistics = load_config(path / "config.yaml"), *_space(path)
    covered = coverage_of(path)
    told = None if covered is None else str(covered["told"])
    scores = list(_scores(path / "journal.jsonl"))
    for score in scores:
        space.check(score.proposal)
    records, spent, history = _gather(scores, space, config.sequence_length)
    policy, result = _end(path, space)
    if policy is None or result is None:
        return Run(
            path,
            config,
            space,
            statistics,
            [*records.values()],
            _leader(space, records),
            spent,
            history,
            None,
            None,
            coverage=told,
        )
    seen = [(tokens, seconds, math.inf if loss is None else loss) for tokens, seconds, loss in result.history]
    best = _found(policy, config.sequence_length)
    return Run(
        path, config, space, statistics, [*records.values()], best, result.spent, seen, policy, result,
        _finetuned(path), told,
    )  # fmt: skip


def _finetuned(path: Path) -> Finetuned | str | None:
    """What is beside the search does not keep its report from being made."""
    try:
        return read_finetuned(path)
    except UserError as error:
        return str(error)


def _space(path: Path) -> tuple[SearchSpace, list[UnitStatistics]]:
    if not (path / "space.json").is_file():
        raise UserError(
            f"the run '{path}' has no space.json: it is still preparing, or an earlier version of autoprune made it. "
            f"`autoprune resume {path}` writes it."
        )
    return load_space(path / "space.json")


def _scores(path: Path) -> Iterator[Score]:
    """Whole lines of a journal after its header; none where there is no journal yet."""
    with explained("the journal", path):
        raw = read_bytes(path, journal.BYTES) if path.exists() else b""
    lines = raw[: raw.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
            if number == 1 and not journal.HEADER.items() <= record.items():
                raise ValueError("no journal, or one of another version")
            if "slopes" in record:  # no score, but an estimate: nothing of it is shown
                journal.decode_estimate(record)
                continue
            if "ended" in record:
                journal.decode_end(record)
                continue
            if number > 1 and not record["losses"]:
                raise ValueError("a score of no sequence")
            if number > 1:
                yield journal.decode(record)
        except DAMAGE as error:
            raise UserError(f"line {number} of the journal '{path}' is damaged ({error}).") from error


def _gather(
    scores: Iterable[Score], space: SearchSpace, sequence_length: int
) -> tuple[dict[Proposal, Scored], Spent, list[tuple[int, float, float]]]:
    """Scores by proposal, their sum, and the history as the objective keeps it."""
    records: dict[Proposal, Scored] = {}
    history, leader = [], None
    evals, tokens, seconds, training = 0, 0, 0.0, 0
    for score in scores:
        proposal = score.proposal
        if proposal not in records or score.steps > records[proposal].steps:
            records[proposal] = Scored(space.keys(proposal), {}, space.feasible(proposal), score.steps)
        one = records[proposal]
        evals, seconds, training = evals + 1 + score.passes, score.seconds, training + score.passes * sequence_length
        tokens += (score.passes + len(score.sequences)) * sequence_length
        if score.steps == one.steps:  # losses after fewer training steps are of other weights
            one.losses.update(zip(score.sequences, score.losses, strict=True))
        if one.feasible and (leader is None or _rank(one) > _rank(leader)):
            leader = one
        if leader is not None:
            history.append((tokens, seconds, leader.loss))
    return records, Spent(evals=evals, tokens=tokens, seconds=seconds, training=training), history


def _rank(one: Scored) -> tuple[bool, int, int, float]:
    return math.isfinite(one.loss), one.steps, len(one.losses), -one.loss


def _leader(space: SearchSpace, records: dict[Proposal, Scored]) -> Best | None:
    """Of a run without a policy: the lowest loss at the highest fidelity, as the objective chooses."""
    feasible = [(proposal, one) for proposal, one in records.items() if one.feasible and math.isfinite(one.loss)]
    if not feasible:
        return None
    proposal, one = max(feasible, key=lambda pair: _rank(pair[1]))
    levels = tuple(space.levels_of(proposal))
    return Best(levels, proposal if isinstance(proposal, tuple) else None, one.loss, len(one.losses))


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
