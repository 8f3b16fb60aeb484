"""Networks that read images: what is scored is what is cut, exported and fine-tuned."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import autoprune
from autoprune import exporting, training
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.cutting import reading
from autoprune.data import digits
from autoprune.errors import UserError
from autoprune.exporting import export_policy
from autoprune.networks.images import ImageView
from autoprune.provenance import make_policy
from autoprune.recovery import finetuning
from autoprune.tasks.image_training import ImageTraining
from tests.conftest import Answer

NETWORK = """
import torch
from torch import nn
from torch.nn import functional

class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.downsample(x))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.layer1 = nn.Sequential(Block(8, 8, 1), Block(8, 8, 1))
        self.layer2 = nn.Sequential(Block(8, 16, 2))
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))

def net():
    torch.manual_seed(0)
    model = Net().train()
    with torch.no_grad():
        for _ in range(30):
            model(torch.randn(32, 3, 12, 12))
    return model

def shared():
    model = net()
    model.layer1[1].conv1.weight = model.layer1[0].conv1.weight
    return model

def chain():
    return nn.Sequential(nn.Flatten(), nn.Linear(432, 4), nn.ReLU())
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 12, 12, 3), dtype=np.uint8), rng.integers(0, 4, 200)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return folder


def settings(files: Path, **others: object) -> dict[str, object]:
    splits = {"reconstruction_sequences": 8, "search_sequences": 4, "validation_sequences": 4, "sequence_length": 8}
    return {"model": f"{files}/net.py:net", "data": str(files / "images.npz"), "levels": 5, **splits, **others}


@pytest.fixture(scope="module")
def assembly(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return assemble(load_config(None, settings(files)))


def view_of(assembly: Assembly) -> ImageView:
    assert isinstance(assembly.view, ImageView)
    return assembly.view


def policies(assembly: Assembly) -> list[tuple[int, ...]]:
    return [assembly.space.dense, assembly.space.uniform(), (1, 4, 2), (3, 0, 4), (4, 4, 4)]


def test_losses_are_those_of_plain_forward_passes(assembly: Assembly) -> None:
    view, chosen = view_of(assembly), policies(assembly)
    losses_KPS = assembly.evaluator(assembly.splits.search, "kl", "ce", "error").score_each(chosen, range(4))
    assembly.placer.release()
    numbers = assembly.splits.search
    logp = view(numbers).double().log_softmax(-1)
    for p, policy in enumerate(chosen):
        assembly.placer.place(policy)
        logq, labels = view(numbers).double().log_softmax(-1), view.labels(numbers)
        kl = (logp.exp() * (logp - logq)).sum(-1).mean(-1)
        ce = -logq.gather(-1, labels[..., None]).squeeze(-1).mean(-1)
        error = (logq.argmax(-1) != labels).double().mean(-1)
        np.testing.assert_allclose(losses_KPS[:, p], torch.stack([kl, ce, error]).numpy(), rtol=1e-4, atol=2e-6)


def test_cut_equals_masked_and_macs_are_counted(assembly: Assembly) -> None:
    """With the first channels kept and nothing reconstructed, the sliced network is the one with the others zero."""
    view = view_of(assembly)
    first = view.widths[0][0]
    first.keep(3)
    sliced = view(assembly.splits.search)
    first.keep(first.width.groups)
    bn = view.blocks[0].get_submodule("bn1")
    hook = bn.register_forward_hook(lambda module, args, out: out * (torch.arange(8) < 3)[:, None, None])
    masked = view(assembly.splits.search)
    hook.remove()
    torch.testing.assert_close(sliced, masked, rtol=1e-5, atol=1e-5)
    space = assembly.space
    for policy in policies(assembly):
        assembly.placer.place(policy)
        assert counted(view) == space.cost(policy, "macs")
    assembly.placer.release()


def counted(view: ImageView) -> int:
    """Multiply-accumulates of the blocks' own convolutions, from the shapes of a run."""
    total = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        weight = module.get_parameter("weight")
        total += weight.numel() * out.shape[2] * out.shape[3]

    hooks = [
        module.register_forward_hook(count)
        for block in view.blocks
        for name, module in block.named_modules()
        if name in ("conv1", "conv2") and isinstance(module, nn.Conv2d)
    ]
    view(torch.zeros(1, 1, dtype=torch.long))
    for hook in hooks:
        hook.remove()
    return total


def test_norms_of_levels_are_what_the_calibration_images_give(assembly: Assembly) -> None:
    """In closed form from moments, or measured: the same change of mean and variance."""
    view, numbers = view_of(assembly), assembly.splits.reconstruction
    hidden = view.embed(numbers)
    block: Any = view.blocks[0]
    width = view.widths[0][0]

    def outputs() -> Tensor:
        x = hidden.flatten(0, 1)
        out: Tensor = block.conv2(functional.relu(block.bn1(block.conv1(x))))
        return out

    assembly.placer.release()
    with torch.no_grad():
        dense = outputs().transpose(0, 1).flatten(1)
        assembly.placer.place((2, 0, 0))
        cut = outputs().transpose(0, 1).flatten(1)
    assembly.placer.release()
    known = reading.batchnorm_statistics(width)
    assert known is not None
    mean, variance = known
    told = assembly.store.weights(0, 2).norm
    assert told is not None
    torch.testing.assert_close(told[0], mean + cut.mean(1) - dense.mean(1), rtol=1e-3, atol=1e-4)
    ratio = cut.var(1, correction=0) / dense.var(1, correction=0)
    torch.testing.assert_close(told[1], variance * ratio, rtol=1e-3, atol=1e-4)


def test_exports_reload_without_autoprune(assembly: Assembly, files: Path, tmp_path: Path) -> None:
    policy, pixels = (1, 4, 2), torch.randn(3, 3, 12, 12)
    export_policy(assembly, make_policy(assembly, policy, {}), tmp_path / "out", "module")
    assembly.placer.place(policy)
    expected = assembly.loaded.model(pixels)
    assembly.placer.release()
    save_file({"x": pixels, "y": expected}, tmp_path / "expected.safetensors")
    script = (
        f"import sys; sys.path[:0] = [{str(tmp_path / 'out')!r}, {str(files)!r}]; import torch; from net import net; from safetensors.torch import load_file; "  # noqa: E501
        f"from load_module import load; e = load_file({str(tmp_path / 'expected.safetensors')!r}); m = load(net()); "
        "torch.testing.assert_close(m(e['x']), e['y']); assert 'autoprune' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(UserError, match="--to module"):
        export_policy(assembly, make_policy(assembly, policy, {}), tmp_path / "hf", "hf")


@pytest.mark.filterwarnings("ignore:the (refit|training) made it worse")  # labels are random
def test_search_and_fine_tuning(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search holds its budget; fine-tuning that is interrupted ends where one that is not does."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    chosen = settings(files, budgets={"macs": 0.6}, max_evals=30, out=tmp_path / "run")
    result = autoprune.search(**chosen)  # type: ignore[arg-type]
    assert result.policy.costs["macs"].policy <= 0.6 * result.policy.costs["macs"].dense
    assert result.table[0].accuracy is not None
    recovered = autoprune.finetune(tmp_path / "run", epochs=2, batch=32)
    assert (recovered.path / "model.safetensors").is_file()
    assembly, policy = exporting.reopen(tmp_path / "run")
    view = view_of(assembly)
    student, how = finetuning.cut_out(assembly, policy), training.TrainingSettings(2, batch=32)
    first = finetuning.cut_out(assembly, policy)
    training_set = ImageTraining(view, torch.arange(200), torch.arange(8))
    training.train(first, training_set, how, tmp_path / "whole")

    def stop(stage: str, share: float) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(student, training_set, how, tmp_path / "twice", stop)
    again = finetuning.cut_out(assembly, policy)
    training.train(again, training_set, how, tmp_path / "twice")
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    other = finetuning.cut_out(assembly, make_policy(assembly, assembly.space.dense, {}))
    with pytest.raises(UserError, match="another policy"):
        training.train(other, training_set, how, tmp_path / "twice", stop)
    with pytest.raises(UserError, match="seed=0"):
        training.train(again, training_set, training.TrainingSettings(2, seed=1, batch=32), tmp_path / "twice", stop)
    adapted = finetuning.cut_out(assembly, policy)
    training.train(adapted, training_set, training.settings_of({}, {"epochs": 1, "lora": 2}), tmp_path / "adapted")
    before = finetuning.cut_out(assembly, policy).state_dict()
    changed = {name for name, tensor in adapted.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"stem.weight", "fc.weight"} <= changed
    assert not {name for name in changed if "bn" in name and name.endswith((".weight", ".bias"))}


def test_bad_images(files: Path, tmp_path: Path) -> None:
    def refused(*seen: str, **changes: object) -> None:
        with pytest.raises(UserError) as error:
            assemble(load_config(None, settings(files, **changes)))
        assert all(word in str(error.value) for word in seen), str(error.value)

    good = dict(np.load(files / "images.npz"))
    (tmp_path / "corrupt.npz").write_bytes((files / "images.npz").read_bytes()[:900])
    np.savez(tmp_path / "labels.npz", images=good["images"], labels=good["labels"] + 1)
    np.savez(tmp_path / "floats.npz", images=good["images"].astype(np.float32), labels=good["labels"])
    np.savez(tmp_path / "tiny.npz", images=good["images"][:20], labels=good["labels"][:20])
    np.savez(tmp_path / "gray.npz", images=good["images"][..., :1], labels=good["labels"])
    refused("corrupt.npz", "is damaged", data=str(tmp_path / "corrupt.npz"))
    refused("labels from 1 to 4", "classes 0 to 3", data=str(tmp_path / "labels.npz"))
    refused("float32", "uint8", data=str(tmp_path / "floats.npz"))
    refused("20 images", "64", data=str(tmp_path / "tiny.npz"))
    refused("1x12x12", data=str(tmp_path / "gray.npz"), image_mean=[0.5], image_std=[0.2])
    refused("image_mean", "2 values", image_mean=[0.5, 0.5])
    refused("no images at", data=str(tmp_path / "none.npz"))
    refused("layer1.1.conv1.weight", "one parameter", model=f"{files}/net.py:shared")
    refused("Sequential", "no family", "no width to cut", model=f"{files}/net.py:chain")
    refused("roofline", "language models", budgets={"roofline": 0.5})
    refused("one worker", workers=2)


def test_folders_of_pictures(files: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    good = np.load(files / "images.npz")
    for i, (pixels, label) in enumerate(zip(good["images"], good["labels"], strict=True)):
        folder = tmp_path / "set" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(folder / f"{i:03d}.png")
    from autoprune.data.images import read_images

    read = read_images(str(tmp_path / "set"), [0.5], [0.5])
    assert len(read) == 200
    assert read.shape == (3, 12, 12)
    assert torch.equal(read.labels.bincount(), torch.from_numpy(np.bincount(good["labels"])))
    image.fromarray(good["images"][0][:5]).save(tmp_path / "set" / "class0" / "small.png")
    with pytest.raises(UserError, match="5x12"):
        read_images(str(tmp_path / "set"), [0.5], [0.5])


@pytest.mark.parametrize("shift", [0, 5])
def test_labels_that_are_not_the_networks_are_told(cli: Callable[..., Answer], tmp_path: Path, shift: int) -> None:
    """Digits by other numbers than the embedded network's: it is then always wrong, whatever is pruned."""
    images, labels = digits.read()
    np.savez(tmp_path / "images.npz", images=images[:400], labels=(labels[:400] + shift) % 10)
    given = ["--model", "tiny-cnn", "--data", tmp_path / "images.npz", "--agent", "uniform", "sequence_length=16"]
    scale = ["--image-mean", str(digits.MEAN), "--image-std", str(digits.STD)]
    answer = cli("search", *given, *scale, "--max-evals", "1", "--out", tmp_path / "run")
    assert answer.status == 0, answer.err
    assert ("number the classes as the network does" in " ".join(answer.err.split())) == bool(shift)
