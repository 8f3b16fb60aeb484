"""A tiny language model and a text, made once a session, on which a whole search takes about two seconds."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers of xdist share the cores

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None)  # no test is timed: other work may keep the processor busy
settings.load_profile("suite")

WORDS = ("the", "a", "one", "of", "network", "layer", "neuron", "head", "keeps", "drops", "small", "search", "policy")

QUICK = {
    "sequence_length": 32,
    "reconstruction_sequences": 16,
    "search_sequences": 8,
    "validation_sequences": 8,
    "levels": 5,
    "max_evals": 40,
}
"""Settings of a search of about two seconds on the tiny model."""


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Level stores of the tests stay with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama of four layers with two KV groups each, and a byte-level tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.1, bos_token_id=256, eos_token_id=None,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("models") / "tiny"
    LlamaForCausalLM(config).save_pretrained(path)
    save_byte_tokenizer(path)
    return str(path)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """About 20,000 characters of words in random order."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text(" ".join(rng.choice(WORDS) for _ in range(4000)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def quick(tiny_model: str, text_file: str) -> dict[str, Any]:
    """Settings of a quick search, for `load_config` and `autoprune.search`."""
    return {"model": tiny_model, "data": text_file, **QUICK}


class Replaceable(str):
    """`KEY=VALUE` that a test may give again with another value; a command itself takes a key once."""


@pytest.fixture(scope="session")
def quick_arguments(quick: dict[str, Any]) -> list[str]:
    """The same for the command line, behind `search`."""
    return [Replaceable(f"{key}={json.dumps(value)}") for key, value in quick.items()]


def once(arguments: Iterable[object]) -> list[str]:
    """Arguments without those that are replaced by others of the same key."""
    listed = list(arguments)
    pairs = [str(one) for one in listed if not isinstance(one, Replaceable) and "=" in str(one)]
    given = {one.partition("=")[0] for one in pairs}
    return [str(one) for one in listed if not (isinstance(one, Replaceable) and one.partition("=")[0] in given)]


@pytest.fixture(scope="session")
def finished_run(quick: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search with evolution, every evaluation of which is a score. Copy it before changing it."""
    from autoprune import search

    own: dict[str, Any] = {"agent_options": {"slope_sequences": 0}, "out": tmp_path_factory.mktemp("runs") / "finished"}
    return search(**quick, **own).path


def save_byte_tokenizer(path: Path) -> None:
    """One token for each byte, and `<s>` as number 256."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(path)


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run a command in this process, from an empty directory: `cli("show", run)`."""
    from autoprune.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main(once(arguments))
        captured = capsys.readouterr()
        return Answer(int(exited.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def refused(cli: Callable[..., Answer]) -> Callable[..., str]:
    """Run a command that must be refused: status 2, one sentence on stderr that holds every string of `seen`."""

    def run(*arguments: object, seen: tuple[str, ...]) -> str:
        answer = cli(*arguments)
        assert answer.status == 2, answer
        assert answer.out == ""
        assert "Traceback" not in answer.err
        sentence = answer.err.strip().splitlines()[-1]
        assert sentence.startswith("autoprune: error: ")
        for part in seen:
            assert part in sentence
        return sentence

    return run
