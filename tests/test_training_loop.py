"""The training loop: steps of several batches, its schedule, saved states, bfloat16, divergence, too little memory."""

import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.errors import UserError
from autoprune.files.arrays import open_tensors, read_tensors
from autoprune.training import TrainingSettings, loop, room, settings_of, step, train
from autoprune.training.step import DivergedError
from tests import toy_training
from tests.toy_training import COUNT, Toy, network

OF_EPOCH = 7


def how(**own: Any) -> TrainingSettings:
    return settings_of({}, {"epochs": 2, "batch": 8, "lr": 1e-2, "optimizer": "adamw", "decay": 0.0, **own})


def furthest(a: nn.Module, b: nn.Module) -> float:
    return max(float((x - y).detach().abs().max()) for x, y in zip(a.parameters(), b.parameters(), strict=True))


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [{"batch": 2, "accumulate": 4}, {"batch": 4, "accumulate": 2, "at_once": 3}])
def test_batches_that_are_accumulated_are_a_large_batch(own: dict[str, Any]) -> None:
    large, small = network(), network()
    told: list[list[float]] = [[], []]
    done = train(large, Toy(), how(), None, on_step=lambda step, m: told[0].append(m["loss"]))
    again = train(small, Toy(), how(**own), None, on_step=lambda step, m: told[1].append(m["loss"]))
    assert (done.steps, done.tokens) == (again.steps, again.tokens) == (2 * OF_EPOCH, 2 * OF_EPOCH * 8)
    assert furthest(large, small) < 1e-5
    assert told[0] == pytest.approx(told[1], abs=1e-6)


def test_an_epoch_has_fewer_steps_where_batches_are_accumulated() -> None:
    assert how(accumulate=2).steps(COUNT, 1) == 2 * math.ceil(COUNT / 16)
    assert how(accumulate=2, workers=2).steps(COUNT, 1) == 2 * math.ceil(COUNT / 32)
    with pytest.raises(UserError, match="max_tokens=12 are fewer than a step takes, 16"):
        how(epochs=None, max_tokens=12, accumulate=2).steps(COUNT, 1)


def test_gradients_are_clipped() -> None:
    before, student = network(), network()
    norms: list[float] = []
    settings = how(epochs=None, max_steps=1, optimizer="sgd", lr=1.0, clip=0.01)
    train(student, Toy(), settings, None, on_step=lambda step, m: norms.append(m["gradient_norm"]))
    moved = [(a - b).detach().flatten() for a, b in zip(student.parameters(), before.parameters(), strict=True)]
    assert norms[0] > 0.01
    assert float(torch.cat(moved).norm()) == pytest.approx(0.01 * (1 + step.MOMENTUM), rel=1e-3)  # Nesterov's first


@pytest.mark.parametrize(("total", "warmup"), [(20, 0.0), (20, 0.25), (100, 0.1), (7, 1.0)])
def test_the_rate_is_that_of_transformers(total: int, warmup: float) -> None:
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rising = round(warmup * total)
    schedule = get_cosine_schedule_with_warmup(optimizer, rising, total)
    theirs = []
    for _ in range(total + 1):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    own = [loop.rate(step, total, warmup) for step in range(total)]
    assert own[rising:] == pytest.approx(theirs[rising:total], abs=1e-9)
    assert own[:rising] == pytest.approx(theirs[1 : rising + 1], abs=1e-9), "no step has a rate of 0"


def test_bfloat16_computes_with_masters_in_float32(tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()
    students = [network(), network()]
    students[1][0].register_forward_hook(lambda layer, args, out: seen.add(out.dtype))  # type: ignore[index]
    for student, dtype in zip(students, ("float32", "bfloat16"), strict=True):
        train(student, Toy(), how(dtype=dtype), tmp_path / dtype)
    assert seen == {torch.bfloat16}
    state = read_tensors(tmp_path / "bfloat16" / "state.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert 0 < furthest(*students) < 0.05


def test_limits_are_written_as_a_search_reads_them() -> None:
    """`autoprune finetune RUN max_tokens=50k` is what `--max-tokens 50k` is."""
    chosen = settings_of({}, {"max_tokens": "50k", "max_steps": "1e3", "max_time": "5min"})
    assert (chosen.max_tokens, chosen.max_steps, chosen.max_time) == (50_000, 1000, 300.0)
    with pytest.raises(UserError, match="'many' is no whole number"):
        settings_of({}, {"max_tokens": "many"})


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(UserError, match="lora=4 trains adapters alone, norms_only=true"):
        how(lora=4, norms_only=True)
    with pytest.raises(UserError, match="sharding=fsdp spreads a network over several workers"):
        how(sharding="fsdp")
    with pytest.raises(UserError, match="dtype"):
        how(dtype="float16")


# -- saved states ------------------------------------------------------------------------------------------------------


def test_states_are_saved_by_steps(tmp_path: Path) -> None:
    saved: list[int] = []

    def look(step: int, measures: Any) -> None:
        path = tmp_path / "state.safetensors"
        if path.exists():
            with open_tensors(path) as file:
                saved.append(int(file.metadata()["step"]))

    train(network(), Toy(), how(save_every=3), tmp_path, on_step=look)
    assert sorted(set(saved)) == [3, 6, 7, 9, 12]  # epochs end after 7 and 14
    done = train(network(), Toy(), how(save_every=1), tmp_path)
    assert done.steps == 14, "how often states are saved may change"
    with pytest.raises(UserError, match="accumulate=1"):
        train(network(), Toy(), how(accumulate=2), tmp_path)


@pytest.mark.slow
def test_killed_at_several_steps_ends_with_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL of a real process, within epochs and between two saved states, with dropout."""

    def run(folder: str, kill_at: int) -> int:
        command = [sys.executable, toy_training.__file__, str(tmp_path / folder), str(kill_at)]
        return subprocess.run(command, check=False, env=_environment()).returncode

    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    assert run("whole", 0) == 0
    for kill_at in (2, 5, 10, 20):
        assert run("killed", kill_at) == -signal.SIGKILL
        assert (tmp_path / "killed" / "state").exists() == (kill_at > 3)
    assert run("killed", 0) == 0
    whole, killed = (read_tensors(tmp_path / name / "trained.safetensors") for name in ("whole", "killed"))
    for name, tensor in whole.items():
        assert torch.equal(tensor, killed[name]), name


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def broken_at(call: int, student: nn.Module) -> Any:
    """Makes weights infinite before a loss, so that it and its gradient are not finite."""

    def at_loss(number: int) -> None:
        if number == call:
            next(student.parameters()).data.fill_(math.inf)

    return at_loss


def test_what_was_trained_before_it_diverged_is_kept(tmp_path: Path) -> None:
    whole, student = network(), network()
    train(whole, Toy(), how(save_every=3), tmp_path / "whole", on_step=_stop_after(9))
    done = train(student, Toy(broken_at(11, student)), how(save_every=3), tmp_path / "state")
    assert (done.steps, done.planned, done.diverged) == (9, 14, 11)
    assert furthest(whole, student) == 0
    assert not student.training
    assert "9 of 14 steps" in done.told()
    assert "step 11 diverged" in done.told()
    told = done.divergence(0.01, tmp_path)
    assert "diverged in step 11" in told
    assert "the network after step 9" in told
    assert "lr=0.01" in told


def test_the_best_epoch_is_kept_where_training_diverges(tmp_path: Path) -> None:
    best, student = network(), network()
    train(best, Toy(), how(epochs=3), tmp_path / "best", on_step=_stop_after(OF_EPOCH))
    done = train(student, Toy(broken_at(OF_EPOCH + 3, student)), how(epochs=3, patience=2), tmp_path / "state")
    assert (done.best, done.diverged) == (OF_EPOCH, OF_EPOCH + 3)
    assert furthest(best, student) == 0


def test_divergence_before_the_first_saved_state(tmp_path: Path) -> None:
    student = network()
    with pytest.raises(DivergedError, match=r"has diverged in epoch 1.*smaller learning rate than lr=0\.01"):
        train(student, Toy(broken_at(2, student)), how(), tmp_path)


def _stop_after(last: int) -> Any:
    from autoprune.errors import StopSearch

    def on_step(step: int, measures: Any) -> None:
        if step == last:
            raise StopSearch

    return on_step


def test_too_little_memory_names_what_fits() -> None:
    student = nn.Sequential(*(nn.Linear(100, 100) for _ in range(10)))  # 101,000 weights

    def told(free: int, **own: Any) -> str:
        with pytest.raises(UserError) as raised:
            room.check_room(student, how(**own), lambda device: free)
        return str(raised.value)

    room.check_room(student, how(), lambda device: 3 * 4 * 101_000)
    assert "take lora=8" in told(1_000_000)
    assert "or norms_only=true" in told(1_000_000)
    assert "nothing smaller fits either" in told(100)
    room.check_room(student, how(lora=8), lambda device: 1_000_000)
    assert "take norms_only=true" in told(100_000, lora=8)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: not enough memory")]
)
def test_memory_that_runs_out_names_what_takes_less(error: RuntimeError) -> None:
    def at_loss(number: int) -> None:
        raise error

    with pytest.raises(UserError, match=r"run out of memory on cpu with 4 examples.*at_once=2.*lora=8 or norms_only"):
        train(network(), Toy(at_loss), how(at_once=4), None)
    with pytest.raises(UserError, match="shorter sequences or a smaller network"):
        train(network(), Toy(at_loss), how(at_once=2, norms_only=True, dtype="bfloat16"), None)


def test_other_errors_are_not_of_memory() -> None:
    def at_loss(number: int) -> None:
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        train(network(), Toy(at_loss), how(), None)
