"""Fine-tuning of language models, all weights and adapters: it helps, goes on where it was, and is what is exported."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

import autoprune
from autoprune import exporting, training
from autoprune.errors import UserError
from autoprune.policy import Policy
from autoprune.ports.training import Measurement
from autoprune.recovery import finetuning
from autoprune.recovery.finetuning import better
from autoprune.recovery.result import of_earlier_policy
from autoprune.tasks.text_training import DEFAULTS, TextMeasurement, TextTraining
from autoprune.training import adapters, loop
from autoprune.training.blending import blended
from autoprune.training.settings import LAYERNORM
from autoprune.wording import Words
from tests.conftest import Answer


@pytest.fixture(scope="module")
def run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which nothing is written."""
    assert (finished_run / "policy.json").is_file()
    return finished_run


@pytest.fixture(scope="module")
def opened(run: Path) -> tuple[Any, Any, Any]:
    """Assembly, policy, and a training set of the run's reconstruction and search splits."""
    assembly, policy = exporting.reopen(run)
    return assembly, policy, short(assembly)


def short(assembly: Any) -> TextTraining:
    """A training set of the reconstruction and search splits."""
    splits = assembly.splits
    return TextTraining(assembly.view, torch.cat([splits.reconstruction, splits.search]), splits.validation)


def given(**own: Any) -> dict[str, Any]:
    return {"epochs": 2, "batch": 8, "at_once": 6, **own}


def how(**own: Any) -> training.TrainingSettings:
    return training.settings_of(DEFAULTS, given(**own))


def copied(run: Path, to: Path) -> Path:
    to.mkdir()
    for name in ("config.yaml", "policy.json"):
        (to / name).write_bytes((run / name).read_bytes())
    return to


@pytest.mark.parametrize("rank", [0, 4])
def test_a_pruned_network_gets_better_and_is_exported(run: Path, tmp_path: Path, rank: int) -> None:
    own = copied(run, tmp_path / "run")
    recovered = finetuning.finetune(own, given(epochs=1, batch=32, at_once=32, lora=rank))
    assert isinstance(recovered.dense, TextMeasurement)
    assert isinstance(recovered.before, TextMeasurement)
    assert isinstance(recovered.after, TextMeasurement)
    assert recovered.dense.kl == 0
    assert recovered.before.kl > 0.01
    assert recovered.after.ce < recovered.before.ce
    assert recovered.after.perplexity < recovered.before.perplexity
    told = json.loads((own / "finetuned" / "result.json").read_text())
    assert told["after"]["ce"] == recovered.after.ce
    assert told["tuning"]["lora"] == rank
    # what was measured is what another process loads
    assembly, _ = exporting.reopen(own)
    script = (
        "import sys, json, torch, autoprune; from transformers import AutoModelForCausalLM; "
        "tokens = torch.tensor(json.loads(sys.argv[2])); m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); "
        "print(float(m(input_ids=tokens, labels=tokens).loss))"
    )
    tokens = str(assembly.splits.validation.tolist())
    arguments = [sys.executable, "-c", script, str(recovered.path), tokens]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(recovered.after.ce, rel=1e-5)


@pytest.mark.parametrize("rank", [0, 4])
def test_trained_weights_come_back_exactly(opened: tuple[Any, Any, Any], tmp_path: Path, rank: int) -> None:
    from transformers import AutoModelForCausalLM

    from autoprune.exporters.huggingface import HuggingFace
    from autoprune.exporters.source import Source

    assembly, policy, training_set = opened
    student = finetuning.cut_out(assembly, policy)
    dense = {name: tensor.clone() for name, tensor in assembly.loaded.model.state_dict().items()}
    fresh = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    training.train(student, training_set, how(epochs=1, lora=rank), tmp_path / "state")
    HuggingFace().write_trained(Source(policy, lambda: assembly), student, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    trained = {n: t for n, t in student.state_dict().items() if not torch.equal(t, fresh[n])}
    assert len(trained) >= (10 if rank else len(fresh) - 2)
    tokens_NT = assembly.splits.search
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=tokens_NT).logits, student(input_ids=tokens_NT).logits, rtol=0, atol=0
        )
    for name, tensor in assembly.loaded.model.state_dict().items():  # the live network is as it was
        assert torch.equal(tensor, dense[name]), name


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("stop_at", [0.4, 0.75])
def test_interrupted_ends_with_the_same_bits(
    opened: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, stop_at: float
) -> None:
    assembly, policy, training_set = opened
    settled = how(lora=rank)
    whole = finetuning.cut_out(assembly, policy)
    training.train(whole, training_set, settled, tmp_path / "whole")
    shares: list[float] = []

    def stop(stage: str, share: float) -> None:
        shares.append(share)
        if share >= stop_at:
            raise KeyboardInterrupt

    # in the middle of an epoch: the state is that of some steps before
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0 if stop_at < 0.5 else 1e9)
    with pytest.raises(KeyboardInterrupt):
        training.train(finetuning.cut_out(assembly, policy), training_set, settled, tmp_path / "twice", stop, "mark")
    again, first = finetuning.cut_out(assembly, policy), len(shares)
    training.train(again, training_set, settled, tmp_path / "twice", lambda stage, share: shares.append(share), "mark")
    assert shares[first] > 0, "it began anew"
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    with pytest.raises(UserError, match="of mark"):
        training.train(finetuning.cut_out(assembly, policy), training_set, settled, tmp_path / "twice", mark="other")
    with pytest.raises(UserError, match="seed=0"):
        training.train(
            finetuning.cut_out(assembly, policy), training_set, how(lora=rank, seed=1), tmp_path / "twice", mark="mark"
        )


class Judged(TextTraining):
    """A training set whose validation losses are given, epoch by epoch."""

    losses: ClassVar[list[float]] = []
    asked = 0

    def measured(self, network: nn.Module, progress: Any = None) -> Any:
        self.asked += 1
        return Known(self.losses[self.asked - 1])


@pytest.mark.parametrize("rank", [0, 4])
def test_early_stopping_hands_over_the_best_epoch(opened: tuple[Any, Any, Any], tmp_path: Path, rank: int) -> None:
    assembly, policy, training_set = opened
    judged: Any = training_set
    judged.__class__ = Judged
    try:
        judged.losses, judged.asked = [3.0, 2.0, math.nan, 2.5, 1.0], 0
        settled = how(epochs=5, lora=rank, patience=2)
        stopped, best = (finetuning.cut_out(assembly, policy) for _ in range(2))
        shares: list[float] = []
        done = training.train(
            stopped, training_set, settled, tmp_path / "stopped", lambda _, share: shares.append(share)
        )
        of_epoch = -(-training_set.count // 8)
        assert (done.steps, done.best, done.planned) == (4 * of_epoch, 2 * of_epoch, 5 * of_epoch)
        assert f"the network after {2 * of_epoch} was best" in done.told()

        def stop(stage: str, share: float) -> None:
            if share > 2.5 / 5:
                raise KeyboardInterrupt

        judged.asked = 0
        with pytest.raises(KeyboardInterrupt):
            training.train(finetuning.cut_out(assembly, policy), training_set, settled, tmp_path / "twice", stop)
        assert judged.asked == 2
        again = training.train(best, training_set, settled, tmp_path / "twice")
        assert (again.steps, again.best, judged.asked) == (done.steps, done.best, 4)
        for name, tensor in stopped.state_dict().items():
            assert torch.equal(tensor, best.state_dict()[name]), name
        finished = training.train(finetuning.cut_out(assembly, policy), training_set, settled, tmp_path / "twice")
        assert (finished.steps, judged.asked) == (done.steps, 4), "a training that is over stays over"
    finally:
        judged.__class__ = TextTraining


def test_the_lesson_holds_the_validation_split_back(opened: tuple[Any, Any, Any]) -> None:
    assembly = opened[0]
    training_set: Any = assembly.task.training(assembly)
    held_out = {tuple(row) for row in assembly.splits.validation.tolist()}
    taught = [tuple(row) for row in training_set._tokens_NT.tolist()]
    assert not held_out & set(taught)
    assert {tuple(row) for row in assembly.splits.search.tolist()} <= set(taught)
    assert len(taught) > len(assembly.splits.search) + len(assembly.splits.reconstruction)


def test_gradients_are_summed_up_over_parts_of_a_step(opened: tuple[Any, Any, Any], tmp_path: Path) -> None:
    assembly, policy, training_set = opened
    students = []
    for at_once in (0, 3):
        students.append(finetuning.cut_out(assembly, policy))
        settled = how(epochs=1, at_once=at_once, optimizer="sgd", lr=0.1)
        training.train(students[-1], training_set, settled, tmp_path / f"{at_once}")
    for a, b in zip(students[0].parameters(), students[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# -- adapters ----------------------------------------------------------------------------------------------------------


def test_merged_adapters_are_what_was_added() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    layers = [
        (nn.Linear(6, 9), torch.randn(4, 6)),
        (Conv1D(9, 6), torch.randn(4, 6)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), torch.randn(2, 4, 7, 7)),
    ]
    for layer, x in layers:
        network = nn.Sequential(layer)
        before, weight = network(x), layer.weight.detach().clone()
        adapters.attach(network, 3, 6.0, 0)
        torch.testing.assert_close(network(x), before)  # nothing at first
        adapter: Any = layer.adapter
        adapter.up.data.normal_()
        assert [p for p in network.parameters() if p.requires_grad] == [adapter.down, adapter.up]
        adapted = network(x)
        adapters.merge(network)
        assert not hasattr(layer, "adapter")
        assert (adapted - before).abs().max() > 0.1
        torch.testing.assert_close(network(x), adapted, rtol=1e-4, atol=1e-5)
        changed = (layer.weight - weight).flatten(1)
        assert torch.linalg.matrix_rank(changed.float(), rtol=1e-4) == 3


def test_adapters_leave_embeddings_and_grouped_convolutions(opened: tuple[Any, Any, Any]) -> None:
    assembly, policy, _ = opened
    student: Any = finetuning.cut_out(assembly, policy)
    adapters.attach(student, 4, 8.0, 0)
    assert not hasattr(student.lm_head, "adapter")
    trained = [name for name, p in student.named_parameters() if p.requires_grad]
    assert trained
    assert all(".adapter." in name and ".layers." in name for name in trained)
    with pytest.raises(UserError, match="leave --lora"):
        adapters.attach(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)), 4, 8.0, 0)


# -- settings and what goes wrong --------------------------------------------------------------------------------------


def test_rate_rises_and_falls() -> None:
    rates = [loop.rate(step, 20, 0.2) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.05
    assert loop.rate(0, 20, 0.0) == 1
    assert loop.rate(19, 20, 1.0) == 1


def test_texts_images_and_adapters_have_defaults_of_their_own() -> None:
    text, adapters = (training.settings_of(DEFAULTS, {"epochs": 1, "lora": rank}) for rank in (0, 8))
    images = training.settings_of({}, {"epochs": 3})
    assert images == training.TrainingSettings(3)
    assert (text.optimizer, images.optimizer) == ("adamw", "sgd")
    assert adapters.lr > text.lr
    assert training.settings_of(DEFAULTS, {"epochs": 1, "lora": 8, "lr": 1e-5}).lr == 1e-5
    assert training.settings_of(LAYERNORM, {"epochs": 1}).optimizer == "adamw"
    assert all(set(own) <= set(text.__dataclass_fields__) for own in (DEFAULTS, LAYERNORM))


def test_weights_of_the_loss() -> None:
    own, dense, labels = torch.randn(3, 5), torch.randn(3, 5), torch.tensor([1, -100, 4])

    def of(weight: float, temperature: float = 1.0, taught: Callable[[], Tensor] = lambda: dense) -> float:
        settled = training.TrainingSettings(1, weight=weight, temperature=temperature)
        return float(blended(own, taught, labels, settled))

    logp, logq = dense.log_softmax(-1), own.log_softmax(-1)
    ce, kl = -(logq[0, 1] + logq[2, 4]) / 2, (logp.exp() * (logp - logq)).sum(-1).mean()
    assert of(0.0, taught=pytest.fail) == pytest.approx(float(ce), rel=1e-5)
    assert of(1.0) == pytest.approx(float(kl), rel=1e-5)
    assert of(0.25) == pytest.approx(float(0.75 * ce + 0.25 * kl), rel=1e-5)
    warm = (dense / 2).log_softmax(-1)
    expected = 4 * (warm.exp() * (warm - (own / 2).log_softmax(-1))).sum(-1).mean()
    assert of(1.0, 2.0) == pytest.approx(float(expected), rel=1e-5)


def test_a_training_that_diverges_is_told_and_not_saved(opened: tuple[Any, Any, Any], tmp_path: Path) -> None:
    assembly, policy, training_set = opened
    with pytest.raises(UserError, match=r"diverged in epoch 1.*lr=1e\+30"):
        training.train(finetuning.cut_out(assembly, policy), training_set, how(lr=1e30, warmup=0.0), tmp_path / "state")
    assert not (tmp_path / "state" / "state.safetensors").exists()


def test_a_full_disk_loses_nothing(
    opened: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoprune.training import state

    assembly, policy, training_set = opened
    settled, folder = how(lora=4), tmp_path / "state"
    real, saved = save_file, 0

    def full(tensors: Any, path: Path, told: Any) -> None:
        nonlocal saved
        saved += 1
        if saved == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, told)

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(UserError, match="No space left"):
        training.train(finetuning.cut_out(assembly, policy), training_set, settled, folder)
    assert [file.name for file in folder.iterdir()] == ["state.safetensors"]
    again, whole = (finetuning.cut_out(assembly, policy) for _ in range(2))
    training.train(again, training_set, settled, folder)
    training.train(whole, training_set, settled, tmp_path / "whole")
    for a, b in zip(again.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    (folder / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        training.train(again, training_set, settled, folder)


def test_the_command(cli: Callable[..., Answer], refused: Callable[..., str], run: Path, tmp_path: Path) -> None:
    own = copied(run, tmp_path / "run")
    answer = cli("finetune", own, "--epochs", "1", "--lora", "4", "--batch", "64", "weight=0.7")
    assert answer.status == 0, answer.err
    rows = {line.split()[0]: line for line in answer.out.splitlines()}
    assert list(rows) == ["dense", "uniform", "found", "refitted", "recovered", "trained:", "network:"]
    assert "perplexity" in rows["recovered"]
    assert "loss (kl) 0.0000" in rows["dense"]
    assert "fine-tuning" in answer.err
    told = json.loads((own / "finetuned" / "result.json").read_text())
    assert (told["tuning"]["weight"], told["tuning"]["lora"], told["tuning"]["batch"]) == (0.7, 4, 64)
    again = cli("finetune", own, "--epochs", "1", "--lora", "4", "--batch", "64", "weight=0.7", "--json")
    record = json.loads(again.out)
    assert record["after"] == told["after"]
    assert record["path"] == str(own / "finetuned" / "network")
    assert cli("evaluate", own / "finetuned" / "network", "--sequence-length", "32", "--max-sequences", "2").status == 0
    refused("finetune", own, "--epochs", "2", seen=("epochs=1", "delete"))
    other = copied(run, tmp_path / "other")
    refused("finetune", other, "--epochs", "1", "wieght=0.7", seen=("wieght", "'weight'"))
    refused("finetune", other, "--epochs", "1", "--lr", "0", seen=("lr", "greater than 0"))
    refused("finetune", other, "--epochs", "1", "weight=2", seen=("weight", "less than or equal to 1"))
    refused("finetune", other, "--epochs", "1", "optimizer=adam", seen=("optimizer", "adam"))
    refused("finetune", other, "--epochs", "1", "--augment", seen=("language model",))
    refused("finetune", tmp_path / "none", "--epochs", "1", seen=("is no run",))
    assert cli("finetune", other).status == 2
    assert not (other / "finetuned").exists()


def test_the_better_network_is_handed_over(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Answer]
) -> None:
    """A training that spoils the network, a refit that does, and both: what is left is what was better."""

    own, spoiling = copied(run, tmp_path / "run"), given(epochs=1, batch=64, at_once=64, lr=1.0, warmup=0.0)
    with pytest.warns(
        RuntimeWarning, match="^the training made it worse .*: the network as it was found is the result"
    ):
        recovered = finetuning.finetune(own, {**spoiling, "refit": False})
    assert isinstance(recovered.before, TextMeasurement)
    assert isinstance(recovered.trained, TextMeasurement)
    assert (recovered.after, recovered.refitted) == (recovered.before, None)
    assert recovered.before.ce < recovered.trained.ce
    told = json.loads((own / "finetuned" / "result.json").read_text())
    assert (told["chosen"], told["after"], told["trained"]["ce"]) == ("before", told["before"], recovered.trained.ce)
    assert "as it was found is the result" in cli("show", own).out

    real = finetuning.cut_out

    def spoiled(assembly: Any, policy: Any, refit: bool = False, *others: Any) -> nn.Module:
        student: Any = real(assembly, policy)
        student.model.norm.weight.data *= 30 if refit else 1
        network: nn.Module = student
        return network

    monkeypatch.setattr(finetuning, "cut_out", spoiled)
    own = copied(run, tmp_path / "again")
    with pytest.warns(RuntimeWarning, match="the refit made it worse .*: the network as it was found is the result"):
        recovered = finetuning.finetune(own, given(epochs=0))
    assert (recovered.after, recovered.trained, recovered.chosen) == (recovered.before, None, "before")
    with pytest.warns(RuntimeWarning, match="the refit made it worse .* and the training made it worse"):
        assert finetuning.finetune(copied(run, tmp_path / "both"), spoiling).after == recovered.before
    assembly, policy = exporting.reopen(own)
    from transformers import AutoModelForCausalLM

    loaded, found = AutoModelForCausalLM.from_pretrained(recovered.path), finetuning.cut_out(assembly, policy)
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


@dataclass(frozen=True)
class Known(Measurement):
    """A network of which nothing but the cross-entropy is known."""

    words = Words()
    ce: float


@pytest.mark.parametrize(
    ("losses", "chosen", "words"),
    [
        ((3.0, 2.0, 1.0), "trained", None),
        ((2.0, 3.0, 1.0), "trained", None),
        ((3.0, 1.0, 2.0), "refitted", "the training made it worse .*: the refitted network is the result"),
        ((1.0, 2.0, 3.0), "before", "the refit .* and the training .*: the network as it was found is the result"),
        ((2.0, math.nan, math.inf), "before", "the refit .* and the training .*: the network as it was found"),
    ],
)
def test_what_is_told_of_the_steps(losses: tuple[float, ...], chosen: str, words: str | None) -> None:
    before, refitted, trained = map(Known, losses)
    measurements = {"before": before, "refitted": refitted, "trained": trained}
    assert better(measurements) == (chosen, measurements[chosen])
    recovered = finetuning.Recovered(Known(0.5), before, refitted, trained, chosen, Path("network"), None)
    assert recovered.after == measurements[chosen]
    assert recovered.told() is None if words is None else re.search(words, recovered.told() or "")


def test_half_precision(quick: dict[str, Any], tmp_path: Path) -> None:
    """All weights are trained in float32, adapters beside weights as they are; both are measured as computed before."""
    result = autoprune.search(**quick | {"agent": "uniform", "dtype": "bfloat16"}, out=tmp_path / "run")
    for rank in (0, 4):
        training_set, student = short(result.assembly), finetuning.cut_out(result.assembly, result.policy)
        before = training_set.measured(student)
        training.train(student, training_set, how(lora=rank), tmp_path / f"{rank}")
        assert next(student.parameters()).dtype == (torch.bfloat16 if rank else torch.float32)
        finetuning.round_weights(result.assembly, student)
        assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
        assert training_set.measured(student).ce < before.ce


def test_blocks_that_were_streamed_are_trained_at_once(run: Path, tmp_path: Path) -> None:
    own = copied(run, tmp_path / "run")
    settings = yaml.safe_load((own / "config.yaml").read_text())
    (own / "config.yaml").write_text(yaml.safe_dump(settings | {"device_memory": 2**30}))
    assert finetuning.finetune(own, given(epochs=1, batch=64, at_once=64, lora=4)).path.is_dir()


def test_a_fine_tuning_of_an_earlier_policy_is_named(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    policy = Policy.load(run / "policy.json")
    assert of_earlier_policy(run, policy) is None, "nothing was fine-tuned"
    (run / "finetuned" / "network").mkdir(parents=True)
    shutil.copy(run / "policy.json", run / "finetuned" / "network")
    assert of_earlier_policy(run, policy) is None
    units = [unit.model_copy(update={"kept": 0}) for unit in policy.units]
    told = of_earlier_policy(run, policy.model_copy(update={"units": units})) or ""
    assert "is of an earlier policy of this run" in told
    assert "delete that folder" in told
