"""Classifiers of images in Hugging Face form, from the directory to the search, the export and back."""

from pathlib import Path

import numpy as np
import pytest
import torch

import autoprune
from autoprune import exporting, training
from autoprune.api import evaluate
from autoprune.assembly import assemble
from autoprune.config import load_config
from autoprune.data.images import ImageSet
from autoprune.errors import UserError
from autoprune.exporters.huggingface import HuggingFace
from autoprune.exporters.source import Source
from autoprune.exporting import export_policy
from autoprune.networks.images import ImageView
from autoprune.provenance import make_policy
from autoprune.recovery import finetuning
from tests import image_families


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npz"
    rng = np.random.default_rng(0)
    side = image_families.SIDE
    images = rng.integers(0, 256, (96, side, side, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=rng.integers(0, image_families.CLASSES, 96))
    return path


def settings(name: str, folder: Path, data: Path, **others: object) -> dict[str, object]:
    model = folder / name
    if not model.exists():
        image_families.tiny_model(name).save_pretrained(model)
    splits = {"reconstruction_sequences": 4, "search_sequences": 3, "validation_sequences": 3, "sequence_length": 8}
    return {"model": str(model), "data": str(data), "levels": 4, "budgets": {"macs": 0.7}, **splits, **others}


def test_search_and_uniform_export_of_a_transformer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads and neurons hold their budget, and equal layers are a stock model."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    chosen = settings("vit", tmp_path, data, max_evals=20, out=tmp_path / "run")
    result = autoprune.search(**chosen)  # type: ignore[arg-type]
    assert result.policy.costs["macs"].policy <= 0.7 * result.policy.costs["macs"].dense
    path = result.export(tmp_path / "stock", uniform=True)
    from transformers import AutoModelForImageClassification

    stock = AutoModelForImageClassification.from_pretrained(path)
    assert type(stock).__name__ == "ViTForImageClassification"
    pixels = torch.randn(2, 3, image_families.SIDE, image_families.SIDE)
    own = AutoModelForImageClassification.from_pretrained(result.export(tmp_path / "own"))
    torch.testing.assert_close(stock(pixels).logits, own(pixels).logits, rtol=1e-5, atol=1e-5)


def test_a_type_of_two_classes_is_exported_as_its_own(data: Path, tmp_path: Path) -> None:
    """DeiT with a distillation head, which the configuration names."""
    from transformers import AutoModelForImageClassification, DeiTConfig, DeiTForImageClassificationWithTeacher

    torch.manual_seed(0)
    config = DeiTConfig(**image_families.TRANSFORMER, num_labels=image_families.CLASSES)
    DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path / "teacher")
    assembly = assemble(load_config(None, settings("teacher", tmp_path, data)))
    levels = assembly.space.uniform()
    policy = make_policy(assembly, levels, {})
    pixels = torch.randn(2, 3, image_families.SIDE, image_families.SIDE)
    paths = [
        export_policy(assembly, policy, tmp_path / form, "hf", uniform=form == "uniform") for form in ("own", "uniform")
    ]
    assembly.placer.place(levels)
    expected = assembly.loaded.model(pixels).logits
    for path in paths:
        loaded = AutoModelForImageClassification.from_pretrained(path)
        assert type(loaded).__name__.endswith("WithTeacher")
        torch.testing.assert_close(loaded(pixels).logits, expected, rtol=1e-5, atol=1e-5)


def test_what_cannot_be(data: Path, tmp_path: Path) -> None:
    chosen = settings("vit", tmp_path, data)
    np.savez(tmp_path / "large.npz", images=np.zeros((96, 40, 40, 3), np.uint8), labels=np.zeros(96, int))
    with pytest.raises(UserError, match="3x40x40"):
        assemble(load_config(None, {**chosen, "data": str(tmp_path / "large.npz")}))
    text = tmp_path / "text"
    image_families.tiny_model("vit").base_model.save_pretrained(text)
    with pytest.raises(UserError, match="ForImageClassification"):
        assemble(load_config(None, {**chosen, "model": str(text), "data": None}))


def test_fine_tuning(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network without BatchNorm has settings of its own, and comes back through transformers."""
    from transformers import AutoModelForImageClassification

    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    given = settings("vit", tmp_path, data, out=tmp_path / "run", agent="uniform")
    assert not autoprune.search(**given).interrupted  # type: ignore[arg-type]
    assembly, policy = exporting.reopen(tmp_path / "run")
    training_set, student = assembly.task.training(assembly), finetuning.cut_out(assembly, policy)
    how = training.settings_of(training_set.defaults, {"epochs": 4, "lora": 2, "batch": 24, "augment": False})
    assert how.optimizer == "adamw"
    pixels = torch.randn(3, 3, image_families.SIDE, image_families.SIDE)
    before = student(pixels).logits
    training.train(student, training_set, how, tmp_path / "state")
    HuggingFace().write_trained(Source(policy, lambda: assembly), student, tmp_path / "out")
    logits = AutoModelForImageClassification.from_pretrained(tmp_path / "out")(pixels).logits
    torch.testing.assert_close(logits, student(pixels).logits, rtol=1e-5, atol=1e-5)
    assert (logits - before).abs().max() > 0.01


def test_images_are_normalised_as_the_checkpoint_says(data: Path, tmp_path: Path) -> None:
    def means(**given: object) -> list[float]:
        view = assemble(load_config(None, {**chosen, **given})).view
        assert isinstance(view, ImageView)
        images = view.images
        assert isinstance(images, ImageSet)
        return [round(value, 3) for value in (*images.mean.flatten().tolist(), *images.std.flatten().tolist())]

    chosen = settings("vit", tmp_path, data)
    file = tmp_path / "vit" / "preprocessor_config.json"
    assert means()[0] == 0.485
    file.write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}')
    assert means() == [0.1, 0.2, 0.3, 0.5, 0.6, 0.7]
    assert means(image_mean=[0.4]) == [0.4, 0.5, 0.6, 0.7]
    file.write_text('{"do_normalize": false, "image_mean": [0.1, 0.2, 0.3]}')
    assert means() == [0.0, 1.0]
    file.write_text('{"image_mean": ["none"]}')
    with pytest.raises(UserError, match=r"preprocessor_config\.json' is damaged"):
        means()
    assert means(image_mean=[0.4], image_std=[0.2]) == [0.4, 0.2]  # it is not asked
    for told, seen in [('"image_std": [0.5, 0.5, 0]', "above 0"), ('"rescale_factor": 1', "divided by 255")]:
        file.write_text(f"{{{told}}}")
        with pytest.raises(UserError, match=seen):
            means()
    with pytest.raises(UserError, match="no language model"):
        evaluate(chosen["model"])  # type: ignore[arg-type]
