"""What holds for every agent, on a toy whose optimum is known: `check_agent`."""

import functools
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.errors import LimitReached
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.ports.agent import load_agent
from autoprune.testing.toys import ToyScorer, best_loss, toy_space

SHARES = (0.3, 0.9)
"""Shares of a journal that a killed search has written."""
CLOSER = 0.5
"""An agent must come this much closer to the optimum than `random`, on average over the toys."""


def check_agent(
    agent: str | type[Any],
    options: Mapping[str, Any] | None = None,
    tokens: int = 32 * 1200,
    better_than_random: bool = True,
) -> None:
    """All of the contract of an agent.

    Args:
        agent: its name, `package.module:Object` or `file.py:Object`, or its class.
        options: its settings. Agents count in tokens of real text, and a sequence of the toy has 32: scale sizes to it.
        tokens: limit of each search.
        better_than_random: whether it must come at most half as far from the optimum as `random` does.

    Raises:
        AssertionError: something does not hold.
    """
    check_limits(check_seeds(agent, options, tokens), tokens)
    check_resumed(agent, options, tokens)
    if better_than_random:
        check_learns(agent, options, tokens)


def searched(
    agent: str | type[Any],
    options: Mapping[str, Any] | None,
    tokens: int,
    seed: int = 0,
    toy: int = 0,
    journal: Path | None = None,
) -> tuple[Objective, ToyScorer]:
    """One search on a toy, and the scorer that was asked."""
    part = load_agent(agent) if isinstance(agent, str) else agent
    scorer = ToyScorer(toy_space(seed=toy), seed=toy)
    with closing(Journal(journal)) as opened:
        objective = Objective(scorer.space, scorer, Limits(tokens=tokens), opened)
        with suppress(LimitReached):
            part(**options or {}).search(objective, np.random.default_rng(seed))
    return objective, scorer


def check_limits(objective: Objective, tokens: int) -> None:
    """Something was scored, all of it within the budgets and the limit."""
    assert objective.archive(), "no policy was scored"
    infeasible = [policy for policy, _, _ in objective.archive() if not objective.space.feasible(policy)]
    assert not infeasible, f"the policy {infeasible[0]} is over a budget: project it with `space.repair`"
    assert objective.spent.tokens <= tokens, f"{objective.spent.tokens} tokens were spent, the limit is {tokens}"


def check_seeds(agent: str | type[Any], options: Mapping[str, Any] | None, tokens: int) -> Objective:
    """Two searches of one seed are equal, whatever else in the process draws random numbers; the second of them."""
    import torch

    found = []
    for elsewhere in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(elsewhere)
            np.random.seed(elsewhere)
            objective, _ = searched(agent, options, tokens, seed=5)
        found.append(objective.archive())
    assert found[0] == found[1], "two searches of one seed differ: take all randomness from `rng`"
    return objective


def check_resumed(agent: str | type[Any], options: Mapping[str, Any] | None, tokens: int) -> None:
    """A search that was killed and resumed ends as one that was not, and scores nothing twice."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        whole, _ = searched(agent, options, tokens, seed=2, journal=path)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for share in SHARES:
            kept = lines[: max(1, int(len(lines) * share))]
            killed = Path(folder) / f"killed-{share}"
            killed.write_text("".join(kept) + '{"levels": [1, 2', encoding="utf-8")
            resumed, scorer = searched(agent, options, tokens, seed=2, journal=killed)
            where = f"killed after {len(kept) - 1} of {len(lines) - 1} scores and resumed, the search"
            assert resumed.archive() == whole.archive(), f"{where} scored other policies"
            assert resumed.best == whole.best, f"{where} has another answer"
            assert resumed.spent.tokens == whole.spent.tokens, f"{where} spent other tokens"
            assert scorer.calls == whole.spent.evals - (len(kept) - 1), f"{where} scored something twice"
            assert _results(killed) == _results(path), f"{where} wrote another journal"


def check_learns(agent: str | type[Any], options: Mapping[str, Any] | None, tokens: int, toys: int = 3) -> None:
    """It comes closer to the optimum than `random` at equal tokens, on average over some toys."""
    gaps = [gap(agent, options, tokens, toy) for toy in range(toys)]
    others = [_random_gap(tokens, toy) for toy in range(toys)]
    assert np.mean(gaps) < CLOSER * np.mean(others), f"{gaps} above the optimum, random {others}"


def gap(agent: str | type[Any], options: Mapping[str, Any] | None, tokens: int, toy: int) -> float:
    """How far above the optimum its answer is, in nats."""
    objective, scorer = searched(agent, options, tokens, seed=toy, toy=toy)
    return scorer.true_loss(objective.best) - optimum(toy)


@functools.cache
def optimum(toy: int) -> float:
    """The lowest loss on a toy."""
    return best_loss(ToyScorer(toy_space(seed=toy), seed=toy), restarts=8)


@functools.cache
def _random_gap(tokens: int, toy: int) -> float:
    return gap("random", {"tokens": 32 * 16}, tokens, toy)


def _results(journal: Path) -> list[str]:
    """The journal's lines without their times."""
    return sorted(line.rpartition(',"seconds"')[0] for line in journal.read_text(encoding="utf-8").splitlines())
