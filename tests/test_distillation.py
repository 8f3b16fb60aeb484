"""What the dense network teaches: distances of logits and of blocks, its most likely classes live and from the disk."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune import exporting, registry, training
from autoprune.assembly import assemble
from autoprune.callbacks import Callback
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.recovery import finetuning
from autoprune.tasks.image_training import refuse_texts_settings
from autoprune.tasks.text_training import DEFAULTS, TextTraining
from autoprune.testing import check_distillation
from autoprune.training import logit_cache
from autoprune.training.blending import blended
from autoprune.training.candidate import copied
from autoprune.training.recording import block_names, recorded
from autoprune.training.top_k import top_of
from tests import tiny_searches

OWN, DENSE, _ = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(0)).unbind()
LABELS = torch.tensor([1, -100, 4, 6])


def how(**own: Any) -> training.TrainingSettings:
    return training.settings_of(DEFAULTS, {"max_steps": 3, "batch": 4, **own})


@pytest.fixture(scope="module")
def opened(finished_run: Path) -> tuple[Any, Any, Any]:
    """Assembly, policy, and a training set of two splits."""
    assembly, policy = exporting.reopen(finished_run)
    splits = assembly.splits
    tokens_NT = torch.cat([splits.reconstruction, splits.search])
    return assembly, policy, TextTraining(assembly.view, tokens_NT, splits.validation, None, assembly.loaded.digest)


def loss_of(opened: tuple[Any, Any, Any], student: nn.Module, settings: training.TrainingSettings) -> Tensor:
    loss: Tensor = opened[2].loss(student, torch.arange(4), settings, torch.Generator())
    return loss.detach()


@pytest.mark.parametrize("name", registry.names("distillations"))
def test_every_distillation_is_a_distance(name: str) -> None:
    check_distillation(name)


def test_the_contract_finds_what_is_no_distance() -> None:
    from autoprune.distillation.forward_kl import ForwardKL

    class Away(ForwardKL):
        def distance(self, own_NK: Tensor, dense_NK: Tensor) -> Tensor:
            return super().distance(own_NK, dense_NK) + 1

    with pytest.raises(AssertionError, match="away from itself"):
        check_distillation(Away)


# -- the loss --------------------------------------------------------------------------------------------------------


def test_forward_and_reverse_divergence_share_and_labels() -> None:
    p, q = DENSE.softmax(-1), OWN.softmax(-1)
    forward, reverse = (p * (p / q).log()).sum(-1).mean(), (q * (q / p).log()).sum(-1).mean()
    ce = nn.functional.cross_entropy(OWN, LABELS)

    def of(**own: Any) -> float:
        return float(blended(OWN, lambda: DENSE, LABELS, how(**own)))

    assert of(weight=1.0) == pytest.approx(float(forward), rel=1e-5)
    assert of(weight=1.0, distill="reverse-kl") == pytest.approx(float(reverse), rel=1e-5)
    assert of(weight=1.0, distill="kl,reverse-kl=0.5") == pytest.approx(float(forward + reverse / 2), rel=1e-5)
    assert of(labels=0.3, distill="reverse-kl") == pytest.approx(float(0.3 * ce + 0.7 * reverse), rel=1e-5)
    assert how(labels=0.3) == how(weight=0.7)


@pytest.mark.parametrize("heat", [1.0, 2.0])
def test_the_most_likely_classes_and_all_others_as_one(heat: float) -> None:
    found = top_of(DENSE, 3, heat)
    p, q = (DENSE / heat).softmax(-1), (OWN / heat).softmax(-1)
    which = p.topk(3).indices
    assert torch.equal(found.which, which)
    p_4, q_4 = (torch.cat([x.gather(1, which), 1 - x.gather(1, which).sum(1, keepdim=True)], 1) for x in (p, q))
    torch.testing.assert_close(found.log.exp(), p_4)
    expected = heat**2 * float((p_4 * (p_4 / q_4).log()).sum(-1).mean())
    assert float(blended(OWN, lambda: DENSE, LABELS, how(weight=1.0, top_k=3, temperature=heat))) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("distill", ["kl", "reverse-kl"])
def test_all_classes_by_their_number_are_all_classes(distill: str) -> None:
    own = OWN.clone().requires_grad_(True)
    whole = blended(own, lambda: DENSE, LABELS, how(weight=1.0, distill=distill))
    named = blended(own, lambda: DENSE, LABELS, how(weight=1.0, distill=distill, top_k=7))
    assert float(named.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    slopes = [torch.autograd.grad(loss, own)[0] for loss in (whole, named)]
    torch.testing.assert_close(*slopes)


def test_outputs_of_blocks_are_compared(opened: tuple[Any, Any, Any]) -> None:
    assembly, policy, examples = opened
    names = block_names(assembly.view)
    assert len(names) == len(assembly.view.blocks)
    student = finetuning.cut_out(assembly, policy)
    tokens_BT = assembly.splits.search[:2]
    with torch.no_grad(), recorded(student, names) as own, recorded(nn.DataParallel(examples.dense), names) as dense:
        student(input_ids=tokens_BT)
        examples.dense(input_ids=tokens_BT)
    assert [tuple(one.shape) for one in own] == [(2, 32, 64)] * len(names)
    apart = [float(((a - b).square().sum(-1) / b.square().sum(-1)).mean()) for a, b in zip(own, dense, strict=True)]
    settings = how(weight=1.0, distill="hidden-mse")
    found = float(examples.loss(student, torch.tensor([16, 17]), settings, torch.Generator()).detach())
    assert found == pytest.approx(sum(apart) / len(apart), rel=1e-4)
    assert float(loss_of(opened, examples.dense, settings)) == 0


@pytest.mark.parametrize(
    "own", [{"distill": "reverse-kl"}, {"top_k": 8}, {"distill": "kl,hidden-mse=0.5"}, {"distill": "hidden-cosine"}]
)
def test_training_makes_it_small(opened: tuple[Any, Any, Any], own: dict[str, Any]) -> None:
    assembly, policy, examples = opened
    student, settings = finetuning.cut_out(assembly, policy), how(weight=1.0, max_steps=12, lr=5e-5, **own)
    before = float(loss_of(opened, student, settings))
    training.train(student, examples, settings, None)
    assert float(loss_of(opened, student, settings)) < before


def test_kept_logits_are_the_live_ones_and_are_written_once(
    opened: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(logit_cache, "FILE_BYTES", 10_000)  # several files
    assembly, policy, examples = opened
    student = finetuning.cut_out(assembly, policy)
    live = loss_of(opened, student, how(top_k=5))
    kept = loss_of(opened, student, how(top_k=5, cached=True))
    torch.testing.assert_close(kept, live)
    (folder,) = (tmp_path / "logits").iterdir()
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 1
    written = [file.stat().st_mtime_ns for file in files]
    files[1].write_bytes(b"half a file")
    again = TextTraining(assembly.view, examples._tokens_NT, assembly.splits.validation, None, assembly.loaded.digest)
    monkeypatch.setattr(again, "dense", examples.dense)
    some = torch.arange(len(examples._tokens_NT))
    again.loss(student, some[-2:], how(top_k=5, cached=True), torch.Generator())
    assert [file.stat().st_mtime_ns == then for file, then in zip(files, written, strict=True)].count(False) == 1
    loss_of(opened, student, how(top_k=6, cached=True))
    assert len(list((tmp_path / "logits").iterdir())) == 2  # another k is another key


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    opened: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="smaller top_k, leave cached=true, or set AUTOPRUNE_CACHE"):
        loss_of(opened, finetuning.cut_out(opened[0], opened[1]), how(top_k=7, cached=True))


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"distill": "revers-kl"}, "Did you mean 'reverse-kl'"),
        ({"distill": "kl,kl"}, "names kl twice"),
        ({"distill": "kl,,hidden-mse"}, "lacks a name"),
        ({"distill": "kl=0"}, "number above 0"),
        ({"distill": "kl=much"}, "number above 0"),
        ({"distill": "torch:Tensor"}, "no subclass"),
        ({"cached": True}, "say how many, as top_k=64"),
        ({"cached": True, "top_k": 4, "distill": "kl,hidden-mse"}, "keeps logits alone"),
        ({"top_k": 4, "distill": "hidden-mse"}, "compares none"),
        ({"labels": 1, "distill": "reverse-kl"}, "labels alone teach"),
        ({"labels": 0.5, "weight": 0.5}, "the same setting"),
        ({"labels": 2}, "from 0 to 1"),
        ({"labels": True}, "from 0 to 1"),
        ({"lables": 0.5}, "Did you mean 'labels'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        how(**own)


def test_more_classes_than_there_are_is_said_before_any_work(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "policy.json"):
        (run / name).write_bytes((finished_run / name).read_bytes())
    stages: list[str] = []
    told = Callback()
    told.on_stage = lambda stage, share: stages.append(stage)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="top_k=300 is more than the network's 257 outputs"):
        finetuning.finetune(run, {"max_steps": 2, "top_k": 300}, told)
    assert not any("validating" in stage or "fine-tuning" in stage for stage in stages)


def test_blocks_of_another_width_cannot_be_compared() -> None:
    hidden = [torch.randn(4, 5)], [torch.randn(4, 6)]
    with pytest.raises(UserError, match=r"block 0 are of the shape \[5\] in the pruned network and \[6\]"):
        blended(OWN, lambda: DENSE, LABELS, how(distill="hidden-mse"), hidden)
    with pytest.raises(UserError, match="no modules of their own"):
        blended(OWN, lambda: DENSE, LABELS, how(distill="hidden-mse"), ([], []))


@pytest.mark.parametrize("name", ["cached", "separate_documents", "answers_only"])
def test_images_have_no_settings_of_texts(name: str) -> None:
    with pytest.raises(UserError, match="is of texts"):
        refuse_texts_settings(how(top_k=4, **{name: True}))


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_blocks_of_images_are_compared(name: str, tmp_path: Path, text_file: str) -> None:
    settings = tiny_searches.settings(tiny_searches.networks()[name], tmp_path, text_file)
    assembly = assemble(load_config(None, settings))
    examples = assembly.task.training(assembly)
    assembly.placer.place(assembly.space.uniform())
    student = copied(assembly.placer)
    given = {"max_steps": 2, "batch": 8, "weight": 1.0, "distill": "hidden-mse", "augment": False}
    settled, some = training.settings_of(examples.defaults, given), torch.arange(8)
    assert float(examples.loss(examples.dense, some, settled, torch.Generator()).detach()) == 0
    assert 0 < float(examples.loss(student, some, settled, torch.Generator()).detach()) < 100
