"""Fine-tunes the policy of a run: cuts the network out, refits it, trains it, and exports the best of the three.

Each network is measured on the validation split. Training uses the rest of the run's data. `RUN/finetuned/` gets
`state.safetensors` after every epoch and every few minutes, and at the end `result.json` and the export `network/`.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from autoprune import rundir
from autoprune.assembly import Assembly
from autoprune.callbacks import SILENT, Callback
from autoprune.cards.sections import Recovery
from autoprune.config import load_config
from autoprune.exporters.source import Source
from autoprune.exporting import make_exporter, own_exporter_of, reopen
from autoprune.files.writing import write_atomically
from autoprune.fine_tuned import STAGES, Lawful, forecast_told, uniform_row
from autoprune.level import GROUPS
from autoprune.policy import Policy, to_json
from autoprune.ports.training import Measurement, TrainingSet
from autoprune.recovery import shown
from autoprune.recovery.adapter_files import BASE, check_adapters, save_adapters
from autoprune.recovery.crew import check_workers, train_together
from autoprune.recovery.cutting_out import cut_out as cut_out
from autoprune.recovery.forecasting import foreseen
from autoprune.tracking.following import tracked
from autoprune.training import frozen
from autoprune.training.loop import Trained, train
from autoprune.training.rehearsal import rehearse
from autoprune.training.settings import TrainingSettings, settings_of
from autoprune.training.state import done

HandOver = Callable[[Assembly, Policy, nn.Module], None]
"""Is given the network that a fine-tuning hands over, in memory, with the run's assembly and policy."""


@dataclass(frozen=True, repr=False)
class Recovered:
    """The result of fine-tuning. Printed, or as the last line of a notebook's cell, it shows what was measured.

    Args:
        dense: the network that the search was given.
        before: the network as the search found it.
        refitted: the network with refitted consumers; None if this was not wanted.
        trained: the trained network, which started from the better of the two; None without training.
        chosen: name of the network with the least loss against the labels.
        path: path of its export.
        training: how far the training went; None if nothing was trained.
        uniform: what the search measured of the uniform policy, by key; None in runs that did not.
        law: what more tokens would buy; None if too little was measured while training.
    """

    dense: Measurement
    before: Measurement
    refitted: Measurement | None
    trained: Measurement | None
    chosen: str
    path: Path
    training: Trained | None = None
    uniform: Mapping[str, float] | None = None
    law: Lawful | None = None

    @property
    def after(self) -> Measurement:
        """The measurement of the network that is handed over."""
        measurement: Measurement = getattr(self, self.chosen)
        return measurement

    @property
    def rows(self) -> dict[str, Measurement]:
        """The measured networks by name. The chosen one comes last, as `after`."""
        steps = {"dense": self.dense, "before": self.before, "refitted": self.refitted, "trained": self.trained}
        left_out = "trained" if self.chosen == "trained" else ""  # it is `after`
        named = {name: known for name, known in steps.items() if known is not None and name != left_out}
        return named | {"after": self.after}

    @property
    def table(self) -> dict[str, Mapping[str, float]]:
        """What was measured of each network, by the names of tables: dense, uniform, found, refitted, recovered."""
        rows: dict[str, Mapping[str, float] | None] = {name: asdict(one) for name, one in self.rows.items()}
        rows["uniform"] = self.uniform
        return {name: row for key, name in STAGES.items() if (row := rows.get(key)) is not None}

    def record(self, given: Mapping[str, Any]) -> Recovery:
        """What the card of its export says. `given` are the settings that the user gave."""
        spent = None if self.training is None else (self.training.tokens, self.training.seconds)
        return Recovery(self.table, given, self.chosen, spent, forecast_told(self.law, self.dense.words))

    def result(self, settings: TrainingSettings) -> dict[str, Any]:
        """What `result.json` says."""
        named: dict[str, Any] = {name: asdict(measurement) for name, measurement in self.rows.items()}
        named |= {"tuning": asdict(settings), "chosen": self.chosen, "uniform": self.uniform}
        named |= {"law": self.law.model_dump()} if self.law else {}
        trained = self.training
        return named | ({"training": asdict(trained), "seconds": trained.seconds} if trained else {})

    def __repr__(self) -> str:
        return shown.text_of(self)

    def _repr_html_(self) -> str:
        return shown.html_of(self)

    def told(self) -> str | None:
        """A sentence about steps whose network was not chosen; None if the last step was chosen."""
        steps = {"refitted": ("the refit", self.refitted), "trained": ("the training", self.trained)}
        kept = "the network as it was found" if self.chosen == "before" else f"the {self.chosen} network"
        worse = [
            f"{name} made it worse ({end.words.label_loss.name} {end.loss:.4f}, {start.loss:.4f} before)"
            for (name, end), start in zip(steps.values(), (self.before, self._start), strict=True)
            if end is not None and not end.loss <= start.loss
        ]
        hint = " Fewer epochs or a smaller lr may help." if self.trained and self.chosen != "trained" else ""
        last = [name for name in steps if getattr(self, name) is not None][-1:]
        if [self.chosen] == (last or ["before"]):
            return None
        return f"{' and '.join(worse) or 'nothing made it better'}: {kept} is the result.{hint}"

    @property
    def _start(self) -> Measurement:
        """What training begins with."""
        return better({"before": self.before, "refitted": self.refitted})[1]


def better(networks: Mapping[str, Measurement | None]) -> tuple[str, Measurement]:
    """The network with the least loss against the labels on the validation split. Ties go to the first."""
    finite = {name: measurement for name, measurement in networks.items() if measurement is not None}
    name = min(finite, key=lambda name: finite[name].loss if math.isfinite(finite[name].loss) else math.inf)
    return name, finite[name]


def finetune(
    run: Path, given: Mapping[str, Any], callbacks: Callback = SILENT, hand_over: HandOver | None = None
) -> Recovered:
    """Fine-tune the policy of a finished run, or continue an interrupted fine-tuning.

    Args:
        run: its directory.
        given: settings that replace the defaults for the run's network (settings.py). They include `epochs` or a limit.
        callbacks: are told how it goes.
        hand_over: called with the network, before the result is written.

    Raises:
        UserError: a setting is wrong, the run has no policy, something else was begun in its `finetuned/`, the training
            diverges, or the disk is full.
    """
    rundir.check_is_run(run)
    rundir.policy_path(run)
    given = dict(given)
    callbacks = tracked(_trackers(run, given), callbacks)
    settings_of({}, given)  # before all else
    if given.get("augment"):
        load_config(run / "config.yaml").chosen_task().require("augment")
    folder, progress = run / "finetuned", callbacks.on_stage
    with rundir.locked(run):
        # derivatives need the whole network on the device
        assembly, policy = reopen(run, progress, places={"device_memory": None})
        examples = assembly.task.training(assembly.original)

        def measured(name: str, network: nn.Module) -> Measurement:
            return examples.measured(network, partial(progress, f"validating ({STAGES.get(name, name)})"))

        settings = settings_of(examples.defaults, given)
        settings.steps(examples.count, examples.tokens)
        callbacks.on_start(settings, run)
        done(folder, asdict(settings), _mark(policy))  # another training is refused before any work
        if settings.workers > 1:
            check_workers(assembly, settings)
        student = cut_out(assembly, policy)
        if settings.epochs != 0 and (what := frozen.told(student)):
            warnings.warn(what, UserWarning, stacklevel=2)
        check_adapters(settings, student)
        rehearse(student, examples, settings, progress)
        dense, measurements = measured("dense", examples.dense), {"before": measured("before", student)}

        def rebuilt(name: str) -> nn.Module:
            again = cut_out(assembly, policy, name == "refitted", progress)
            round_weights(assembly, again)
            return again

        if settings.refit:
            student = rebuilt("refitted")
            measurements["refitted"] = measured("refitted", student)
        start, _ = better(measurements)
        student = student if start == list(measurements)[-1] else rebuilt(start)
        trained = None
        if settings.epochs != 0:
            trained = _trained(run, assembly, student, examples, settings, _mark(policy), callbacks)
            measurements["trained"] = measured("trained", student)
        law = foreseen(folder, examples, settings, trained, measurements[start], measurements.get("trained"))
        chosen, _ = better(measurements)
        student = rebuilt(start) if trained and chosen == start else student
        recovered = Recovered(
            dense,
            measurements["before"],
            measurements.get("refitted"),
            measurements.get("trained"),
            chosen,
            folder / "network",
            trained,
            uniform_row(policy, list(asdict(dense))),
            law,
        )
        exporter = make_exporter(own_exporter_of(assembly.config))
        exporter.write_trained(
            Source(policy.as_found(), lambda: assembly, recovery=recovered.record(given)), student, recovered.path
        )
        if trained and settings.save_adapters:
            base = rebuilt(start)
            exporter.write_trained(Source(policy.as_found(), lambda: assembly), base, folder / BASE)
            save_adapters(folder, base, settings)
        if hand_over is not None:
            hand_over(assembly, policy, student)
        write_atomically(folder / "result.json", to_json(recovered.result(settings)) + "\n")
    if worse := recovered.told():
        warnings.warn(worse, RuntimeWarning, stacklevel=2)
    callbacks.on_end(recovered)
    return recovered


def _trained(
    run: Path,
    assembly: Assembly,
    student: nn.Module,
    examples: TrainingSet,
    settings: TrainingSettings,
    mark: str,
    callbacks: Callback,
) -> Trained:
    """Train the network in place, in this process or in several, and round its weights to the checkpoint's dtype."""
    folder = run / "finetuned"
    if settings.workers > 1:
        trained = train_together(run, assembly, student, examples, settings, folder, mark, callbacks)
    else:
        trained = train(student, examples, settings, folder, callbacks.on_stage, mark, callbacks.on_step)
    if trained.diverged is not None:
        warnings.warn(trained.divergence(settings.lr, folder), RuntimeWarning, stacklevel=3)
    round_weights(assembly, student)
    return trained


def _trackers(run: Path, given: dict[str, Any]) -> str | None:
    """The setting `track`, which is taken out of those of the training; None leaves the run's own."""
    asked = given.pop("track", None)
    own = {} if asked is None else {"track": asked}
    return load_config(run / "config.yaml", own).track


def round_weights(assembly: Assembly, student: nn.Module) -> None:
    """Round weights to the dtype of an export, so that the measured network is the exported one."""
    compute = next(assembly.loaded.model.parameters()).dtype
    for parameter in student.parameters():
        parameter.data = parameter.data.to(assembly.loaded.checkpoint_dtype).to(compute)


def _mark(policy: Policy) -> str:
    """Of which model, groups and levels of other forms a network is."""
    forms = ("" if unit.form == GROUPS else f" {unit.as_level.name}" for unit in policy.units)
    units = "".join(f"{unit.name} {unit.kept_groups}{form};" for unit, form in zip(policy.units, forms, strict=True))
    return f"{policy.provenance.get('model_hash')}/{hashlib.sha256(units.encode()).hexdigest()[:16]}"
