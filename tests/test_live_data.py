"""Data as Python has them: what the cache gets of texts, records, data sets, loaders, arrays and endless iterables."""

import itertools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import autoprune
from autoprune.data import batch_arrays
from autoprune.data.images import read_images
from autoprune.data.live import named
from autoprune.data.text import read_texts
from autoprune.errors import UserError
from autoprune.files.cache import cache_directory

TEXTS = [f"a text of some length, number {n}" for n in range(30)]
IDS = torch.arange(64).view(8, 8)


def texts_of(data: Any, length: int = 16) -> list[str]:
    name = named(data, length)
    assert Path(name).parent == cache_directory() / "data"
    return list(read_texts(name).sources[0].texts)


def tokens_of(data: Any, length: int = 16) -> list[list[int]]:
    (source,) = read_texts(named(data, length)).sources
    return [document.tolist() for document in source.tokens]


# -- names and texts -------------------------------------------------------------------------------------------------


def test_names_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "with space").write_text("text")
    assert named(None) is None
    assert [named(one) for one in ("a.txt", "digits", "-", "own/set:train")] == [
        "a.txt",
        "digits",
        "-",
        "own/set:train",
    ]
    assert named(Path("a.txt")) == "a.txt"
    assert named(["with space", "b.jsonl=2"]) == {"with space": 1.0, "b.jsonl": 2.0}
    assert named([Path("a"), "b.txt"]) == ["a", "b.txt"]
    assert named({"a": 1, "b": 2}) == {"a": 1.0, "b": 2.0}


def test_texts() -> None:
    text = "a line\n" * 50
    assert texts_of(text) == [text]
    assert texts_of("x" * 300) == ["x" * 300]
    assert texts_of('{"text": 1}\n{"text": 2}\n') == ['{"text": 1}\n{"text": 2}\n']  # a text is what it is
    assert texts_of(TEXTS) == texts_of(tuple(TEXTS)) == texts_of(iter(TEXTS)) == TEXTS
    assert texts_of(DataLoader(TEXTS, batch_size=4)) == TEXTS  # type: ignore[arg-type]
    assert read_texts(named(TEXTS)).sources[0].notices == ()
    assert named(TEXTS) == named(list(TEXTS))  # one content, one file


def test_records() -> None:
    rows = [{"text": text, "id": n} for n, text in enumerate(TEXTS)]
    assert texts_of(rows) == texts_of({"text": TEXTS, "id": list(range(30))}) == TEXTS
    chat = [{"role": "user", "content": "hi"}]
    assert read_texts(named([{"messages": chat}] * 2)).sources[0].chats == [chat, chat]
    assert read_texts(named([chat, chat])).sources[0].chats == [chat, chat]


def test_data_sets() -> None:
    datasets = pytest.importorskip("datasets")
    own = datasets.Dataset.from_dict({"id": list(range(30)), "text": TEXTS})
    assert (
        texts_of(own) == texts_of(own.to_iterable_dataset()) == texts_of(datasets.DatasetDict({"test": own})) == TEXTS
    )
    tokenised = datasets.Dataset.from_dict({"input_ids": IDS.tolist(), "attention_mask": [[1] * 7 + [0]] * 8})
    expected = IDS[:, :7].tolist()
    assert tokens_of(tokenised) == tokens_of(tokenised.with_format("torch")) == expected
    with pytest.raises(UserError, match=r"splits a, b and no train: give one"):
        named(datasets.DatasetDict({"a": own, "b": own}))


def test_pictures_of_data_sets() -> None:
    datasets, image = pytest.importorskip("datasets"), pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 5, 6, 3), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    made = {"image": [image.fromarray(one) for one in pixels], "label": list(range(8))}
    read = read_images(named(datasets.Dataset.from_dict(made, features=features)))
    assert torch.equal(read.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert read.labels.tolist() == list(range(8))


# -- tokens ----------------------------------------------------------------------------------------------------------


def test_tokens() -> None:
    rows, mask = IDS.tolist(), torch.ones_like(IDS)
    mask[:, 6:] = 0
    whole: list[Any] = [
        IDS, IDS.numpy(), rows, [IDS[:4], IDS[4:]], DataLoader(TensorDataset(IDS), batch_size=3),
        [{"input_ids": IDS[:5]}, {"input_ids": IDS[5:], "labels": IDS[5:]}], {"input_ids": IDS}, {"input_ids": rows},
    ]  # fmt: skip
    for data in whole:
        assert tokens_of(data) == rows, data
    assert tokens_of([{"input_ids": IDS, "attention_mask": mask}]) == IDS[:, :6].tolist()
    assert tokens_of({"input_ids": [[1, 2, 3], [4]]}) == [[1, 2, 3], [4]]
    with pytest.raises(UserError, match=r"hold the token -100: give an attention_mask"):
        named(torch.full((2, 3), -100))


def test_rows_of_the_right_length_are_the_sequences(tiny_model: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = read_texts(named(IDS))
    assert torch.equal(texts.sequences(tokenizer, 8).tokens(), IDS)
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    joined = texts.sequences(tokenizer, 16).tokens().flatten().tolist()
    assert joined[:18] == [*range(8), 257, *range(8, 16), 257]


# -- images ----------------------------------------------------------------------------------------------------------


def test_images() -> None:
    pixels, labels = torch.randint(0, 256, (8, 3, 5, 6), dtype=torch.uint8), torch.arange(8)
    same: list[Any] = [
        (pixels, labels), [(pixels[:3], labels[:3]), (pixels[3:], labels[3:])], TensorDataset(pixels, labels),
        DataLoader(TensorDataset(pixels, labels), batch_size=3), [{"pixel_values": pixels, "labels": labels}],
        [(pixels.permute(0, 2, 3, 1).numpy(), labels.numpy())],
    ]  # fmt: skip
    for data in same:
        read = read_images(named(data if isinstance(data, list) or not isinstance(data, tuple) else [data]))
        assert torch.equal(read.images, pixels)
        assert torch.equal(read.labels, labels)
    floats = torch.randn(8, 1, 5, 6)
    name = named([(floats, labels)])
    read = read_images(name)
    assert torch.equal(read.inputs(torch.arange(8)), floats)
    with pytest.raises(UserError, match="leave image_mean"):
        read_images(name, [0.5], [0.5])


# -- bounds and mistakes ---------------------------------------------------------------------------------------------


def endless() -> Iterator[dict[str, torch.Tensor]]:
    for n in itertools.count():
        yield {"input_ids": torch.full((4, 16), n % 100)}


def test_what_is_endless_is_read_until_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return endless()

    monkeypatch.setattr(batch_arrays, "ENOUGH", 10)
    for data in (endless(), Endless(), DataLoader(Endless(), batch_size=None)):
        with pytest.warns(UserWarning, match="may be endless: the first 160 tokens are read, enough for 10 samples"):
            assert len(tokens_of(data)) == 10
    with pytest.warns(UserWarning, match="may be endless"):
        assert len(texts_of(itertools.repeat("x" * 64))) == 20  # of eight characters for each of 16 tokens
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(tokens_of(itertools.islice(endless(), 2))) == 8


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (3, "data takes a name"),
        (b"text", "data takes a name"),
        (object(), "data takes a name"),
        ([], "hold nothing"),
        (iter([]), "used up"),
        ([3.5, 4.5], "the data give a float"),
        ([torch.zeros(2, 2)], r"an array \[2, 2\] of torch.float32"),
        (
            {"input_ids": IDS.float()},
            r"input_ids are whole numbers of the shape \[B, T\] or \[T\] \(got .*\[8, 8\].*float32",
        ),
        ({"input_ids": IDS.view(2, 4, 8)}, r"\(got a Tensor of shape \[2, 4, 8\] and torch.int64"),
        ([{"input_ids": [[0.5, 1.0]]}], r"\(got \[\[0.5, 1.0\]\]\)"),
        (
            (1 / 0 for _ in range(3)),
            r"the data that were given \(generator\) raised ZeroDivisionError at .*live_data.py",
        ),
        ([{"input_ids": IDS}, "text"], "the data give a str, and tokens are needed"),
        ([{"text": object()}], "cannot be kept: it holds a object"),
        ([(torch.zeros(2, 3, 4, 4), torch.zeros(2))], "of Tensor"),
        ([(torch.full((2, 3, 4, 4), 300), torch.zeros(2, dtype=torch.long))], "0 to 255 are needed"),
    ],
)
def test_what_is_no_data(data: Any, seen: str) -> None:
    with pytest.raises(UserError, match=seen):
        named(data)


def test_an_error_of_the_data_is_told_with_its_cause() -> None:
    class Broken:
        def __len__(self) -> int:
            raise KeyError("lost")

        def __getitem__(self, number: int) -> str:
            raise KeyError("found")

    with pytest.raises(UserError, match=r"the data that were given \(Broken\) raised KeyError at .*: 'lost'") as caught:
        named(Broken())
    assert isinstance(caught.value.__cause__, KeyError)
    Broken.__len__ = lambda self: 1  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"raised KeyError at .*: 'found'"):
        named(Broken())


# -- whole runs ------------------------------------------------------------------------------------------------------


def test_a_run_on_live_data_goes_on_as_any_other(quick: dict[str, Any], tmp_path: Path) -> None:
    text = Path(quick["data"]).read_text()
    own = {**quick, "max_evals": 5, "agent": "random"}
    pieces = [text[start : start + 500] for start in range(0, len(text), 500)]
    result = autoprune.search(**{**own, "data": pieces}, out=tmp_path / "run")
    again = autoprune.resume(tmp_path / "run")
    assert (again.policy.units, again.loss) == (result.policy.units, result.loss)
    assert autoprune.evaluate(tmp_path / "run", data=pieces, max_sequences=2)["tokens"] == 64
    assert autoprune.evaluate(quick["model"], text, sequence_length=32, max_sequences=2)["tokens"] == 64
    done = autoprune.finetune(tmp_path / "run", max_steps=2)
    assert done.path.is_dir()


def run(*arguments: str, given: bytes, folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "autoprune", *arguments],
        input=given, capture_output=True, check=False, cwd=folder, timeout=120,
    )  # fmt: skip


def test_stdin_is_kept_for_the_run(quick: dict[str, Any], tmp_path: Path) -> None:
    settings = [f"{key}={json.dumps(value)}" for key, value in (quick | {"max_evals": 5, "agent": "random"}).items()]
    settings = [one for one in settings if not one.startswith("data=")]
    text = Path(quick["data"]).read_bytes()
    done = run("search", *settings, "--data", "-", "--out", "run", "--json", given=text, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    again = run("resume", "run", "--json", given=b"", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    policies = [json.loads(one.stdout)["policy"] for one in (done, again) if b'"policy"' in one.stdout]
    assert policies[:1] == policies[1:]
    empty = run("search", *settings, "--data", "-", given=b"", folder=tmp_path)
    assert empty.returncode == 2
    assert b"it gave nothing" in empty.stderr


def test_a_terminal_is_not_waited_for(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "autoprune", "search", "--data", "-"],
            stdin=follower, capture_output=True, check=False, cwd=tmp_path, timeout=120,
        )  # fmt: skip
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 2
    assert b"that is a terminal: pipe data in" in done.stderr


def test_a_search_on_live_images(tmp_path: Path) -> None:
    """Floats go to the network as they are: normalised digits score as the digits do."""
    pytest.importorskip("sklearn")
    from autoprune.data import digits

    pixels, labels = digits.read()
    scaled = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - digits.MEAN) / digits.STD
    loader = DataLoader(TensorDataset(scaled, torch.from_numpy(labels)), batch_size=100)
    own: dict[str, Any] = {"max_evals": 3, "agent": "random", "budgets": {"params": 0.5}}
    result = autoprune.search("tiny-cnn", loader, **own, out=tmp_path / "live")
    known = autoprune.search("tiny-cnn", **own, out=tmp_path / "digits")
    assert result.table[0].accuracy == known.table[0].accuracy
    assert autoprune.finetune(tmp_path / "live", max_steps=1).path.is_dir()
