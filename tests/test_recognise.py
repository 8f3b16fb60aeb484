"""Whatever exists and is no model is told what it is, and what to give in its place."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Refused = Callable[..., str]


def archive(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as out:
        for name in names:
            out.writestr(f"archive/{name}", b"")


FILES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "m.gguf": (lambda p: p.write_bytes(b"GGUF\x03\0\0\0rest"), ("is a GGUF file", "gguf_file=FILE", "save_pretrained")),
    "renamed": (lambda p: p.write_bytes(b"GGUF\x03\0\0\0rest"), ("is a GGUF file",)),
    "model.safetensors": (
        lambda p: p.write_bytes((2).to_bytes(8, "little") + b"{}"), ("without its configuration", "Give its folder")
    ),
    "pytorch_model.bin": (lambda p: archive(p, "data.pkl", "data/0"), ("torch.save", "no pickles")),
    "last.ckpt": (lambda p: archive(p, "data.pkl"), ("torch.save",)),
    "old.pt": (lambda p: p.write_bytes(pickle.dumps({"a": 1}, protocol=2)), ("is a pickle", "save_pretrained")),
    "script.pt": (lambda p: archive(p, "data.pkl", "constants.pkl"), ("TorchScript",)),
    "m.onnx": (lambda p: p.write_bytes(b"\x08\x08\x12\x07pytorch"), ("is an ONNX model",)),
    "m.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n"), ("Keras",)),
    "m.tflite": (lambda p: p.write_bytes(b"\x1c\0\0\0TFL3"), ("TFLite",)),
    "weights.npz": (lambda p: archive(p, "w.npy"), ("NumPy",)),
    "lfs.safetensors": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), ("Git LFS",)),
    "net.py": (lambda p: p.write_text("def make(): ..."), ("net.py:FUNCTION",)),
    "config.json": (lambda p: p.write_text("{}"), ("file of settings", "Give its folder")),
    "empty": (lambda p: p.write_bytes(b""), ("no directory of a model", "hub name")),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["search --model", "evaluate"])
def test_a_file_is_told_what_it_is(refused: Refused, tmp_path: Path, command: str, name: str) -> None:
    make, seen = FILES[name]
    make(tmp_path / name)
    sentence = refused(*command.split(), tmp_path / name, seen=(f"{tmp_path / name}' is ", *seen))
    assert "no model directory" not in sentence


def folder(path: Path, **files: object) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        told = content if isinstance(content, str) else json.dumps(content)
        (path / name.replace("__", ".")).write_text(told)
    return path


WEIGHTS = "weights"
FOLDERS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "adapter": (
        {"adapter_config__json": {"base_model_name_or_path": "some/base"}, "adapter_model__safetensors": WEIGHTS,
         "tokenizer__json": {}}, ("an adapter (PEFT)", "of 'some/base'", "merge_and_unload")
    ),
    "tokenizer": ({"tokenizer__json": {}, "tokenizer_config__json": {}}, ("a tokenizer alone",)),
    "pipeline": ({"model_index__json": {}}, ("diffusers",)),
    "run": ({"config__yaml": "", "journal__jsonl": ""}, ("a run of autoprune", "autoprune export")),
    "comparison": ({"config__yaml": "", "compare__yaml": ""}, ("a comparison of autoprune",)),
    "module": ({"config__json": {"format": "autoprune.module/1"}, "model__safetensors": WEIGHTS}, ("pruned already",)),
    "gguf": ({"m__gguf": "GGUF", "config__json": {}}, ("a GGUF model", "gguf_file=FILE")),
    "maker": ({"params__json": {}, "consolidated.00__pth": ""}, ("its maker's own form",)),
    "pickles": ({"config__json": {}, "pytorch_model__bin": ""}, ("no weights", "pytorch_model.bin is a pickle")),
    "checkpoint": ({"last__ckpt": ""}, ("config.json", "last.ckpt is a pickle")),
    "distributed": ({"__0_0__distcp": ""}, ("distributed checkpoint",)),
    "tensorflow": ({"config__json": {}, "tf_model__h5": ""}, ("TensorFlow or JAX",)),
    "onnx": ({"config__json": {"format": "x"}, "network__onnx": ""}, ("cannot be pruned",)),
    "half": (
        {"config__json": {}, "model-1__safetensors": WEIGHTS,
         "model.safetensors.index__json": {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}},
        ("lacks 1 of its files", "model-2.safetensors"),
    ),
    "lfs": (
        {"config__json": {}, "model__safetensors": "version https://git-lfs.github.com/spec/v1\noid"}, ("git lfs pull",)
    ),
    "nothing": ({}, ("no config.json", "It is empty")),
    "something": ({"notes__txt": "", "a__b": ""}, ("no config.json", "It holds a.b, notes.txt")),
    "broken": ({"config__json": "{", "pytorch_model__bin": ""}, ("no weights",)),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_told_what_it_is(refused: Refused, tmp_path: Path, name: str) -> None:
    files, seen = FOLDERS[name]
    path = folder(tmp_path / name, **files)
    refused("search", "--model", path, seen=(f"'{path}' ", *seen))


def test_checkpoints_and_snapshots_in_a_folder_are_named(refused: Refused, tmp_path: Path) -> None:
    for inside in ("trained/checkpoint-500", "cached/snapshots/0123abc"):
        place = folder(tmp_path / inside, config__json={}, model__safetensors=WEIGHTS)
        refused("search", "--model", tmp_path / inside.split("/")[0], seen=("give one of these", f"'{place}'"))


def test_a_real_run_is_no_model(refused: Refused, finished_run: Path, tmp_path: Path, tiny_model: str) -> None:
    refused("search", "--model", finished_run, seen=("is a run of autoprune",))
    adapter = Path(shutil.copytree(tiny_model, tmp_path / "both"))
    (adapter / "adapter_config.json").write_text("{}")  # beside a whole model it does no harm
    refused("search", "--model", adapter, "--data", "nowhere.txt", seen=("nowhere.txt",))
