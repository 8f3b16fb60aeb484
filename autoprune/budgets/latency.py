"""Milliseconds of one forward pass, measured on the search's own device, including embedding and head.

The table is measured once for a device, a network's shapes and a workload, and kept in `<cache>/latency/<key>.json`. A
run keeps a copy, which takes precedence, so that costs do not change between a search and its resumption or export. A
damaged table in the cache is measured again. A damaged table in a run is an error.

Whole networks are measured, under the same conditions as in use. Each round measures every network once, so that a
drift of the machine affects all alike. A round takes the best of a few passes, and the result is the median of the
rounds. additive.py computes the table from them.

Shapes: U units, N networks, R rounds.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.budgets.additive import UnitClass, classes_of, design, fit, mixed
from autoprune.budgets.latency_table import FILE, Check, ClassTimes, LatencyTable, load_table
from autoprune.budgets.passes import Pass, seconds_of
from autoprune.errors import UserError
from autoprune.level import Level, form_of
from autoprune.networks.blocks import BlockView
from autoprune.ports.metric import Network, of_network
from autoprune.space import Unit

VERSION = 2
STAGE = "measuring latency"
SECONDS = 90.0  # of measuring that is aimed at
FEWEST, MOST = 4, 20  # rounds
VISIT, PASSES = 0.3, 5  # seconds and passes of a network in a round, whichever is first
RANDOM_CHECKS = 3


def clock(network: Network) -> float:
    """Seconds of one forward pass of a network as it stands."""
    view = network.view
    return best_seconds(network.task.forward_pass(view, network.workload), next(view.model.parameters()).device)


def best_seconds(forward: Pass, device: torch.device) -> float:
    """The least of a few passes: what makes one longer is something else on the machine (as timeit has it).

    One before them does not count: it finds cold caches, and kernels that are yet to be loaded.
    """
    seconds_of(forward, device)
    times: list[float] = []
    while len(times) < PASSES and sum(times) < VISIT:
        times.append(seconds_of(forward, device))
    return min(times)


@of_network
def latency(network: Network) -> LatencyTable:
    """The table of the run, of the cache, or measured now.

    Raises:
        UserError: the run's table is damaged or of another network; latency cannot be measured here; or the cache
            cannot be written.
    """
    own = network.run / FILE if network.run is not None else None
    if own is not None and own.is_file():
        return _of_run(own, network.units)
    about = _about(network)
    described = [VERSION, about, [_numbers(unit) for unit in network.units], network.view.shape()]
    key = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = network.cache / "latency" / f"{key}.json"
    try:
        table = load_table(path)
        if _covers(table, network.units):
            return table
    except (OSError, ValueError):
        pass  # none, or damaged: measured anew
    _check_measurable(network)
    table = build(network, about | {"file": str(path)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache '{path.parent}' cannot be written ({error.strerror}): set AUTOPRUNE_CACHE."
        ) from error
    table.save_as(path)
    return table


def build(network: Network, about: dict[str, Any]) -> LatencyTable:
    """Measure a table, and whole networks beside it: dense, half of every unit, and a few at random levels."""
    units, workload = network.units, network.workload
    classes = classes_in(network)
    networks = design(classes)
    checked_with = checks(units, classes)
    time_N = 1e3 * _measure(network, [*networks, *checked_with.values()])
    fixed, rows = fit(classes, networks, time_N[: len(networks)])
    table = LatencyTable(
        schema="autoprune.latency/1",
        measured_on=about,
        fixed=fixed,
        classes=[
            ClassTimes(units=[units[u].name for u in one.members], kept=[level.key for level in one.levels], ms=row)
            for one, row in zip(classes, rows, strict=True)
        ],
        checks=[],
    )
    measured = zip(checked_with.items(), time_N[len(networks) :], strict=True)
    checked = [
        Check(network=name, predicted=table.total(units, levels, workload), measured=float(ms))
        for (name, levels), ms in measured
    ]
    return table.model_copy(update={"checks": checked})


def classes_in(network: Network) -> list[UnitClass]:
    """The units of a network by what they cost there."""
    view, units = network.view, network.units
    widths = [width.width for row in view.widths for width in row]
    stay = {u for u, width in enumerate(widths) if not width.droppable}
    return classes_of(units, view.attention_types, view.places, stay)


# -- measuring -------------------------------------------------------------------------------------------------------


def _measure(network: Network, levels_NU: Sequence[Sequence[Level]]) -> NDArray[np.float64]:
    """Median seconds of every network: a round to warm up, which tells how many there can be, then those."""
    view, rng, times_RN = network.view, np.random.default_rng(0), []
    network.progress(STAGE, 0.0)
    with dense_afterwards(view):

        def timed() -> list[float]:
            times = [0.0] * len(levels_NU)
            for n in rng.permutation(len(levels_NU)):
                place(view, levels_NU[n])
                times[n] = clock(network)
            return times

        begun = time.monotonic()
        timed()
        rounds = int(np.clip(SECONDS / max(1e-9, time.monotonic() - begun), FEWEST, MOST))
        for r in range(rounds):
            network.progress(STAGE, (r + 1) / (rounds + 1))
            times_RN.append(timed())
    return np.asarray(np.median(times_RN, axis=0))


def place(view: BlockView, levels_U: Sequence[Level]) -> None:
    """Cut the live network as an export would be: weights in memory of their own, cache slots of those that attend."""
    widths = [width for row in view.widths for width in row]
    for width, level in zip(widths, levels_U, strict=True):
        if form_of(level).shape(level, width):
            for parameter in width.dense.parameters():
                parameter.data = parameter.data.contiguous()
    view.number_caches()


@contextmanager
def dense_afterwards(view: BlockView) -> Iterator[None]:
    """The network as it is in use, to be cut; and as it was afterwards, whatever happens."""
    try:
        with view.as_given():
            yield
    finally:
        widths = [width for row in view.widths for width in row]
        place(view, [Level.of_groups(width.width.groups, width.width.groups) for width in widths])
        for width in widths:
            width.keep(width.width.groups)


def checks(units: Sequence[Unit], classes: Sequence[UnitClass]) -> dict[str, Sequence[Level]]:
    """Networks that costs are checked with, of which a table has seen the first two: name -> a level of every unit."""
    half = [
        min(unit.levels, key=lambda level: abs(form_of(level).size(level, unit.groups) - unit.groups / 2))
        for unit in units
    ]
    named: dict[str, Sequence[Level]] = {"dense": [unit.levels[0] for unit in units], "half": half}
    return named | {f"random {i + 1}": levels for i, levels in enumerate(mixed(classes, RANDOM_CHECKS, seed=1))}


# -- what a table is of ----------------------------------------------------------------------------------------------


def _of_run(path: Path, units: Sequence[Unit]) -> LatencyTable:
    try:
        table = load_table(path)
    except OSError as error:
        raise UserError(f"the latency table '{path}' cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(
            f"the latency table '{path}' is damaged ({error}): delete it to have it measured anew."
        ) from error
    if not _covers(table, units):
        raise UserError(f"the latency table '{path}' is of other units than this network's: delete it.")
    return table


def _covers(table: LatencyTable, units: Sequence[Unit]) -> bool:
    measured = {name: one.kept for one in table.classes for name in one.units}
    return all({level.key for level in unit.levels} <= set(measured.get(unit.name, ())) for unit in units)


def _check_measurable(network: Network) -> None:
    """Raise a UserError where a forward pass here would not tell what the user wants to know."""
    if network.view.streamed:
        raise UserError(
            "latency cannot be measured with device_memory: blocks would be brought from the host's memory in each "
            "pass, and the time would be that of the copies. Leave device_memory out, or give a table of your own "
            "(--budget FILE.csv=0.6) or the budget roofline."
        )
    wanted, dtype = network.workload.dtype, _dtype(network.view)
    if wanted not in (None, dtype):
        raise UserError(f"latency is measured in the search's dtype, {dtype}: set dtype={wanted}, not workload.dtype.")


def _about(network: Network) -> dict[str, Any]:
    """What was measured, on what."""
    model: Any = network.view.model
    workload = asdict(network.workload)
    if not network.task.has_context:
        del workload["context"]
    return {
        "device": device_name(next(model.parameters()).device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "dtype": _dtype(network.view),
        "attention": str(getattr(getattr(model, "config", None), "_attn_implementation", None)),
        "workload": workload,
    }


def _numbers(unit: Unit) -> dict[str, Any]:
    """A unit as the name of its table has it, which is older than levels."""
    numbers = asdict(unit) | {"kept": [level.key for level in unit.levels]}
    del numbers["levels"]
    return numbers


def _dtype(view: BlockView) -> str:
    return str(next(view.model.parameters()).dtype).removeprefix("torch.")


def device_name(device: torch.device) -> str:
    """The model of a GPU or a CPU, as it calls itself; a CPU with the number of its cores."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return device.type
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass  # not on Linux
    return f"{name} ({os.cpu_count()} cores)"
