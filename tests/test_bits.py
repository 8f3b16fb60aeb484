"""The form bits: levels in place, in the store, in the costs, and what is exported."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune import assembly as assembling
from autoprune.assembly import Assembly, assemble
from autoprune.calibration.producers import collect_read
from autoprune.config import load_config
from autoprune.cutting.matrices import matrices_of
from autoprune.level import Level, form_called
from autoprune.levels.bits import Bits
from autoprune.levels.quantising.storage import BITS
from autoprune.space import Unit


def test_levels() -> None:
    form = form_called("bits")
    assert isinstance(form, Bits)


@pytest.fixture
def assembly(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Assembly:
    def units_of(view: Any, config: Any) -> list[Unit]:
        from dataclasses import replace

        units = []
        for b, widths in enumerate(view.widths):
            for width in widths:
                g = width.width.groups
                unit = width.unit(b, (Level.of_groups(g, g),))
                levels = [unit.levels[0], *(Bits().level(unit, g, bits) for bits in BITS)]
                levels += [Bits().level(unit, g // 2, 4), Level.of_groups(0, g)]
                levels = [levels[0], *sorted(levels[1:], key=lambda level: -level.density)]
                units.append(replace(unit, levels=tuple(levels)))
        return units

    monkeypatch.setattr(assembling, "units_of", units_of)
    return assemble(load_config(overrides=quick | {"budgets": {"memory": 0.5}}))


def test_a_level_is_placed(assembly: Assembly) -> None:
    space = assembly.space
    print(space.rows("memory")[:2], space.fixed, [l.name for l in space.units[0].levels])
    ev = assembly.evaluator(assembly.splits.search, "kl")
    names = [[level.name for level in unit.levels] for unit in space.units]
    for level in range(9):
        loss = ev.score([(level,) * len(space.units)], range(4)).mean()
        print(names[0][level], loss, [round(s.output_errors[level], 5) for s in assembly.store.statistics[:2]])
    assert 0
