"""What holds for every loss, family and exporter, on a small network."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune import registry
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.exporters.source import Source
from autoprune.exporting import export_policy, reopen
from autoprune.space import Levels

SMALL: dict[str, Any] = {
    "reconstruction_sequences": 4, "search_sequences": 3, "validation_sequences": 2, "levels": 3,
    "criterion": "magnitude",
}  # fmt: skip
"""Settings under which a small network is made ready in seconds; a check's own settings win over them."""

Outputs = Callable[[Path, Tensor], Tensor]


def check_loss(loss: str, model: str | Path | None = None, data: str | Path | None = None, **settings: Any) -> None:
    """All of the contract of a loss.

    Args:
        loss: its name, `package.module:Object` or `file.py:Object`.
        model: a small network, as a search takes it; None is the embedded language model.
        data: what it reads, likewise.
        settings: anything else in `SearchConfig`.

    Raises:
        AssertionError: something does not hold.
    """
    assembly = _assembled(model, data, settings)
    evaluator = assembly.evaluator(assembly.splits.search, loss)
    space, sequences = assembly.space, range(evaluator.n_sequences)
    policies = [space.dense, space.uniform(), space.sparsest]
    losses_PS = evaluator.score(policies, sequences)
    assert losses_PS.shape == (len(policies), len(sequences)), f"losses of shape {losses_PS.shape}"
    assert np.isfinite(losses_PS).all(), f"the losses {losses_PS.tolist()} are not finite"
    for p, policy in enumerate(policies):
        for s in sequences:
            alone = float(evaluator.score([policy], [s])[0, 0])
            assert np.isclose(alone, losses_PS[p, s], rtol=1e-4, atol=1e-6), (
                f"sequence {s} loses {alone} by itself and {losses_PS[p, s]} beside others"
            )


def check_family(family: str, model: str | Path, data: str | Path | None = None, **settings: Any) -> None:
    """All of the contract of a model family, on one network of it.

    Args:
        family: its name in the registry, or `package.module:Object`.
        model: a small network of it, as a search takes it; its weights should be random, so that every one counts.
        data: what it reads, likewise.
        settings: anything else in `SearchConfig`.

    Raises:
        AssertionError: something does not hold.
    """
    assembly = _assembled(model, data, settings)
    own, expected = assembly.loaded.family.name, registry.load("families", family).name
    assert own == expected, f"the network '{model}' is taken for one of the family '{own}', not '{expected}'"
    units = assembly.space.units
    assert units, "the network has no units"
    assert len({unit.name for unit in units}) == len(units), "two units have one name"
    claimed = sum(unit.params(unit.groups) for unit in units)
    assert claimed <= assembly.loaded.n_params, f"units claim {claimed} parameters of {assembly.loaded.n_params}"
    _check_placing(assembly)


def _check_placing(assembly: Assembly) -> None:
    """Levels change the outputs while they are placed, and nothing is left of them when they are taken back."""
    space, losses = assembly.space, assembly.evaluator(assembly.splits.search, "ce", once=True)
    sequences = range(losses.n_sequences)

    def of(policy: Levels) -> Any:
        return losses.score([policy], sequences)

    state = {name: tensor.clone() for name, tensor in assembly.loaded.model.state_dict().items()}
    dense = of(space.dense)
    for policy in [space.sparsest, *(space.sample(np.random.default_rng(seed)) for seed in range(3))]:
        once = of(policy)
        assert np.array_equal(of(policy), once), f"the policy {policy} loses something else the second time"
        assert not np.array_equal(once, dense), f"the policy {policy} changes no output"
        assert np.array_equal(of(space.dense), dense), f"after the policy {policy} the dense network is another one"
    assembly.placer.release()
    for name, tensor in assembly.loaded.model.state_dict().items():
        assert tensor.shape == state[name].shape, f"{name} has another shape after levels were placed"


def check_exporter(
    exporter: str,
    run: str | Path,
    options: Mapping[str, Any] | None = None,
    inputs: Tensor | None = None,
    outputs: Outputs | None = None,
    tolerance: float = 1e-4,
) -> None:
    """All of the contract of an exporter.

    Args:
        exporter: its name, `package.module:Object` or `file.py:Object`.
        run: the directory of a finished run of a small network.
        options: the exporter's own.
        inputs: what the network reads, a batch of it.
        outputs: loads what was written and gives its outputs on the inputs, which are compared with the pruned
            network's; None where the form cannot be loaded here.
        tolerance: largest difference of outputs, relative to the largest output.

    Raises:
        AssertionError: something does not hold.
        UserError: it refuses the run.
    """
    assembly, policy = reopen(Path(run))
    source = Source(policy, lambda: assembly)
    assembly.placer.release()
    before = {name: tensor.clone() for name, tensor in source.network.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export"
        for _ in range(2):  # an earlier export is replaced
            export_policy(assembly, policy, path, exporter, **options or {})
            assert path.exists(), f"nothing was written to '{path}'"
        assembly.placer.release()
        for name, tensor in source.network.state_dict().items():
            assert torch.equal(tensor, before[name]), f"{name} of the dense network has changed"
        if inputs is None or outputs is None:
            return
        found = outputs(path, inputs)
        with source.pruned() as network, torch.no_grad():
            answer: Any = network(inputs)
            expected: Tensor = getattr(answer, "logits", answer)
            worst, scale = float((found - expected).abs().max()), float(expected.abs().max())
        assert worst <= tolerance * scale, f"outputs differ by {worst:.2e}, where the largest is {scale:.2e}"


def _assembled(model: str | Path | None, data: str | Path | None, settings: Mapping[str, Any]) -> Assembly:
    named = {"model": None if model is None else str(model), "data": None if data is None else str(data)}
    return assemble(load_config(None, {**SMALL, **named, **settings}))
