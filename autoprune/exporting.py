"""Opens a finished run again and exports its policy. The command line, Python and fine-tuning use this module."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune import registry, rundir, usercode
from autoprune.arguments import made
from autoprune.assembly import Assembly, assemble
from autoprune.config import SearchConfig, load_config
from autoprune.errors import UserError
from autoprune.exporters.source import Source
from autoprune.networks.quiet import without_bars
from autoprune.policy import Policy
from autoprune.ports.exporter import Exporter, load_exporter
from autoprune.ports.task import Progress
from autoprune.provenance import proposal_of
from autoprune.validation import total_params

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = (".safetensors", ".gguf")
"""Endings of files that hold nothing but weights and a few words."""
NOTHING_SAVED = 0.98
"""An export whose bytes are more than this share of the dense network's is reported as saving nothing."""


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        path: where it was written.
        to: the exporter's name.
        written: bytes of the weights; 0 for a form that does not tell.
        dense: bytes of the dense network's weights; 0 where it was not loaded.
    """

    path: Path
    to: str
    written: int
    dense: int


def reopen(
    out: Path,
    progress: Progress = lambda stage, share: None,
    policy_file: Path | None = None,
    places: Mapping[str, Any] | None = None,
) -> tuple[Assembly, Policy]:
    """The assembly and a policy of a finished run: the best policy, or the one in a file, such as those in `front/`.

    `places` are settings of where it is computed (`config.PLACES`). They replace the run's own.
    """
    rundir.check_is_run(out)
    policy = Policy.load(policy_file or rundir.policy_path(out))
    return _opened(out, load_config(out / "config.yaml", dict(places or {})), policy, progress), policy


def export_run(
    run: Path,
    path: Path,
    to: str | None = None,
    options: Mapping[str, Any] | None = None,
    policy_file: Path | None = None,
    progress: Progress = lambda stage, share: None,
    refit: bool = True,
) -> Exported:
    """Export a policy of a finished run. The network is loaded only if the exporter needs it.

    Args:
        run: its directory; or that of an export in Hugging Face form, as `RUN/finetuned/network`, for the forms that
            can be made of one.
        path: where to write.
        to: name of an exporter. None takes the exporter that fits the run's network.
        options: the exporter's own, by name.
        policy_file: a policy file to export instead of the best policy.
        progress: called with the stage.
        refit: whether a policy that was refitted is exported so. False exports it as the search found it.

    Raises:
        UserError: there is no such exporter or option, it refuses the run or the path, the policy is of another model,
            or it cannot be written.
    """
    asked = None if to is None else make_exporter(to, options)  # a wrong name is told before anything else
    if asked is not None and is_export(run):
        return _converted(run, path, str(to), asked)
    rundir.check_is_run(run)
    policy, config = Policy.load(policy_file or rundir.policy_path(run)), load_config(run / "config.yaml")
    policy = policy if refit else policy.as_found()
    name = to or own_exporter_of(config)
    exporter = asked or make_exporter(name, options)
    source = Source(policy, partial(_opened, run, config, policy, progress), config)
    _check(exporter, config, path)
    if exporter.needs_network:
        source.check()  # which loads it
    progress(str(exporter.stage), 0.0)
    _write(name, exporter, source, path)
    written, dense, _ = export_bytes(source.assembly, policy, path) if exporter.needs_network else (0, 0, 0)
    return Exported(path, name, written, dense)


def is_export(path: Path) -> bool:
    """Whether a directory is an export in Hugging Face form, and no run."""
    names = ("config.json", "policy.json")
    return all((path / name).is_file() for name in names) and not (path / "config.yaml").exists()


def _converted(directory: Path, path: Path, name: str, exporter: Exporter) -> Exported:
    """Write an export in another form."""
    if not exporter.converts:
        raise UserError(f"'{directory}' is an export, and --to {name} is written of a run: give the run that it is of.")
    exporter.check(path)
    try:
        exporter.convert(directory, path)
    except OSError as error:
        raise UserError(f"'{path}' could not be written ({error.strerror or error}).") from error
    return Exported(path, name, _bytes(path), 0)


def export_policy(
    assembly: Assembly, policy: Policy, path: Path, to: str | None = None, refit: bool = True, **options: Any
) -> Path:
    """Write a policy's network with an exporter; `to`, `refit` and options as `export_run` takes them.

    Raises:
        UserError: as `export_run`.
    """
    name = to or own_exporter_of(assembly.config)
    policy = policy if refit else policy.as_found()
    exporter, source = make_exporter(name, options), Source(policy, lambda: assembly, assembly.config)
    source.check()
    _check(exporter, assembly.config, path)
    _write(name, exporter, source, path)
    return path


def network_in_memory(
    assembly: Assembly, policy: Policy, to: str | None = None, refit: bool = True, **options: Any
) -> "nn.Module":
    """A policy's network as an exporter would write it, but in memory; arguments are as `export_run` takes them.

    Raises:
        UserError: as `export_run`, or the exporter has no networks in memory.
    """
    name = to or own_exporter_of(assembly.config)
    policy = policy if refit else policy.as_found()
    exporter, source = make_exporter(name, options), Source(policy, lambda: assembly)
    source.check()
    refusal = exporter.refuses(assembly.config)
    if refusal is not None:
        raise UserError(refusal)
    with without_bars():
        network = exporter.network(source)
    if network is None:
        raise UserError(f"the exporter '{name}' only writes files: use export(path, to='{name}').")
    return network


def make_exporter(name: str, options: Mapping[str, Any] | None = None) -> Exporter:
    """An exporter by name with its options.

    Raises:
        UserError: no such exporter, or it has no such option, or not such a value.
    """
    return made(load_exporter(name), options or {}, f"the exporter '{name}'", "option")


def own_exporter_of(config: SearchConfig) -> str:
    """The exporter that writes a network in the form in which the run was given it. Trained networks are saved with it.

    Raises:
        UserError: no registered exporter does.
    """
    for name in registry.PARTS["exporters"]:
        exporter = load_exporter(name)
        if exporter.writes_trained and exporter().refuses(config) is None:
            return name
    raise UserError(f"no exporter writes the network of '{config.model}' as it was given.")


def export_bytes(assembly: Assembly, policy: Policy, path: Path) -> tuple[int, int, int]:
    """Bytes of the weights: of an export (0 if its form does not tell), of the dense network, and without padding."""
    written = _bytes(path)
    size = assembly.loaded.checkpoint_dtype.itemsize
    return written, assembly.loaded.n_params * size, total_params(assembly, proposal_of(assembly, policy)) * size


def _bytes(path: Path) -> int:
    """Bytes of the weights that an export wrote; 0 for a form that cannot be told by its files."""
    files = [file for suffix in WEIGHTS for file in path.glob(f"*{suffix}")] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.suffix in WEIGHTS)


def _opened(run: Path, config: SearchConfig, policy: Policy, progress: Progress) -> Assembly:
    data = policy.provenance.get("data_hash")
    masks = any(unit.level is None for unit in policy.units)  # the agent, which may be a live object, is not needed
    return assemble(config, progress, masks, run, data if isinstance(data, str) else None)


def _check(exporter: Exporter, config: SearchConfig, path: Path) -> None:
    refusal = exporter.refuses(config)
    if refusal is not None:
        raise UserError(refusal)
    exporter.check(path)


def _write(name: str, exporter: Exporter, source: Source, path: Path) -> None:
    """Write, and tell the user where the files save nothing."""
    own = name not in registry.PARTS["exporters"]
    try:
        with without_bars():
            if own:
                usercode.call("exporter", exporter.write, source, path)
            else:
                exporter.write(source, path)
    except OSError as error:
        raise UserError(f"'{path}' could not be written ({error.strerror or error}).") from error
    if exporter.needs_network:
        _warn(exporter, source, path)


def _warn(exporter: Exporter, source: Source, path: Path) -> None:
    if any(unit.form == "bits" for unit in source.policy.units) and not exporter.packs:
        told = "weights of few bits were multiplied out: the file is as large as without them."
        warnings.warn(f"{told} --to compressed-tensors writes them packed.", UserWarning, stacklevel=4)
        return
    written, dense, native = export_bytes(source.assembly, source.policy, path)
    padding = exporter.padding  # only with it files tell more than parameters, which have no headers
    if written and min(written, written if padding else native) > NOTHING_SAVED * dense:
        why = f"{padding} it has {native / 1e6:,.1f} MB" if padding else "the policy leaves nearly everything"
        sizes = f"{written / 1e6:,.1f} MB of weights, the dense network {dense / 1e6:,.1f} MB"
        warnings.warn(f"the export saves nothing ({sizes}): {why}.", UserWarning, stacklevel=4)
