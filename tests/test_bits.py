"""The form bits: levels in place, in the store, in the costs, and what is exported."""

from typing import Any

import pytest

from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config


@pytest.fixture
def assembly(quick: dict[str, Any]) -> Assembly:
    return assemble(load_config(overrides=quick | {"budgets": {"memory": 0.25}, "forms": "groups,bits"}))


def test_a_level_is_placed(assembly: Assembly) -> None:
    space = assembly.space
    for u in (0, 1, -1):
        print(
            space.units[u].name,
            [(l.name, round(l.density, 3)) for l in space.units[u].levels],
            [round(e, 5) for e in assembly.store.statistics[u].output_errors],
        )
    print(space.rows("memory")[-1], space.fixed)
    ev = assembly.evaluator(assembly.splits.search, "kl")
    print(ev.score([space.uniform()], range(4)).mean(), space.uniform())
    n = len(space.units)
    for level in range(6):
        p = [0] * n
        p[-1] = level
        print(ev.score([tuple(p)], range(4)).mean())
    assert 0
