"""Documents become sequences: what stands between them, shares of several sources, chats, and hashes of the splits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.data.mixing import interleaved
from autoprune.data.splits import SHARES, split
from autoprune.data.text import read_texts
from autoprune.data_names import Wanted, names_of
from autoprune.errors import UserError

LENGTH = 16
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}\n{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: str) -> Any:
    """One token for each byte; 256 opens a sequence, 257 ends a document."""
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tiny_model)
    made.add_special_tokens({"eos_token": "</s>"})
    assert (made.bos_token_id, made.eos_token_id) == (256, 257)
    return made


@pytest.fixture
def opening(tokenizer: Any) -> int:
    """How many tokens open a sequence."""
    return len(tokenizer("").input_ids)


def lines(path: Path, texts: list[str]) -> str:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return str(path)


def stories(count: int, what: str) -> list[str]:
    return [f"{what} number {n} with some words behind it" for n in range(count)]


def test_one_plain_text_is_read_as_before(tmp_path: Path, tokenizer: Any) -> None:
    """Sequences and the hash of the splits are those of the text alone: runs of earlier versions resume."""
    text = "some text, and more of it\n" * 40
    (tmp_path / "t.txt").write_text(text)
    found = read_texts(str(tmp_path / "t.txt")).sequences(tokenizer, LENGTH)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    count = len(ids) // LENGTH
    assert torch.equal(found.tokens(), torch.tensor(ids[: count * LENGTH]).view(count, LENGTH))
    old = split(found.tokens(), {"search": 3}, 5)
    new = found.split({"search": 3}, 5)
    assert (new.digest, new.notices) == (old.digest, ())
    assert all(torch.equal(getattr(new, name), getattr(old, name)) for name in SHARES)


def test_documents_are_joined_with_the_eos_token(tmp_path: Path, tokenizer: Any) -> None:
    texts = stories(30, "story")
    stream = read_texts(lines(tmp_path / "a.jsonl", texts)).sequences(tokenizer, LENGTH).tokens().flatten().tolist()
    expected = tokenizer("</s>".join(texts), add_special_tokens=False).input_ids
    assert expected.count(257) == 29
    assert stream == expected[: len(stream)]
    assert len(expected) - len(stream) < LENGTH
    ended = [f"{text}</s>\n" for text in texts]
    again = read_texts(lines(tmp_path / "b.jsonl", ended)).sequences(tokenizer, LENGTH).tokens().flatten().tolist()
    assert again == tokenizer("".join(ended), add_special_tokens=False).input_ids[: len(again)]


def test_without_an_eos_token_an_empty_line_stands_between(tmp_path: Path, tiny_model: str) -> None:
    from transformers import AutoTokenizer

    plain, texts = AutoTokenizer.from_pretrained(tiny_model), stories(30, "story")
    stream = read_texts(lines(tmp_path / "a.jsonl", texts)).sequences(plain, LENGTH).tokens().flatten().tolist()
    assert stream == plain("\n\n".join(texts), add_special_tokens=False).input_ids[: len(stream)]


# -- chats -----------------------------------------------------------------------------------------------------------


def chats(path: Path, count: int = 20) -> str:
    rows = [
        [{"role": "user", "content": f"what is {n}?"}, {"role": "assistant", "content": f"a number, {n}"}]
        for n in range(count)
    ]
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows), encoding="utf-8")
    return str(path)


def test_chats_go_through_the_chat_template(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = read_texts(chats(tmp_path / "c.jsonl"))
    with pytest.raises(UserError, match="has no chat template"):
        texts.sequences(tokenizer, LENGTH)
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    found = texts.sequences(tokenizer, LENGTH)
    said = tokenizer.decode(found.tokens().flatten())
    assert said.replace("<s>", "").startswith("[user]what is 0?</s>\n[assistant]a number, 0</s>\n[user]what is 1?")
    digest = found.split({}, 0).digest
    monkeypatch.setattr(tokenizer, "chat_template", f"{TEMPLATE}{{# another #}}")
    assert texts.sequences(tokenizer, LENGTH).split({}, 0).digest != digest
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no such roles') }}")
    with pytest.raises(UserError, match=r"does not take record 1 of .*no such roles"):
        texts.sequences(tokenizer, LENGTH)


# -- several ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0.1, 10)), min_size=1, max_size=4))
def test_any_piece_has_the_shares_of_the_whole(sources: list[tuple[int, float]]) -> None:
    sizes, weights = [size for size, _ in sources], [weight for _, weight in sources]
    order = interleaved(sizes, weights)
    assert len(set(order)) == len(order)
    for start in range(0, len(order), 7):
        piece = [which for which, _ in order[start : start + 7]]
        for which, weight in enumerate(weights):
            assert abs(piece.count(which) - len(piece) * weight / sum(weights)) < 3
    assert len(interleaved(sizes, None)) == sum(sizes)
    taken = [sum(which == i for which, _ in order) for i in range(len(sizes))]
    assert any(have == size for have, size in zip(taken, sizes, strict=True))


def test_weights_are_shares_of_the_sequences_of_every_split(tmp_path: Path, tokenizer: Any) -> None:
    """The first byte of a document says of which source it is."""
    names = [lines(tmp_path / f"{letter}.jsonl", [letter * 200] * 60) for letter in "ab"]
    texts = read_texts({names[0]: 1.0, names[1]: 3.0})
    found = texts.sequences(tokenizer, LENGTH)
    splits = found.split({"reconstruction": 40, "search": 20, "validation": 20}, 0)
    for name in SHARES:
        tokens_NT = getattr(splits, name)
        of_b = int((tokens_NT == tokenizer("b").input_ids[-1]).any(1).sum())
        assert of_b == len(tokens_NT) * 3 / 4
    assert "more of" in splits.notices[-1]
    assert splits.digest != read_texts({names[0]: 1.0, names[1]: 2.0}).sequences(tokenizer, LENGTH).split({}, 0).digest


def test_without_weights_everything_is_read(tmp_path: Path, tokenizer: Any) -> None:
    names = [lines(tmp_path / f"{letter}.jsonl", [letter * 200] * 10 * (n + 1)) for n, letter in enumerate("ab")]
    found = read_texts(names).sequences(tokenizer, LENGTH)
    assert len(found.tokens()) == sum(map(len, found.parts))


def test_column_and_split_are_in_the_hash(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": text, "other": text} for text in stories(30, "story")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    digests = {
        read_texts(Wanted(str(tmp_path / "a.jsonl"), column)).sequences(tokenizer, LENGTH).split({}, 0).digest
        for column in ("text", "other")
    }
    for name in ("train", "test"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        wanted = Wanted(str(tmp_path / "d"), "text", name)
        digests.add(read_texts(wanted).sequences(tokenizer, LENGTH).split({}, 0).digest)
    assert len(digests) == 4


def test_the_same_twice_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    name = lines(tmp_path / "a.jsonl", stories(30, "a"))
    with pytest.raises(UserError, match="twice"):
        names_of([name, name])
    (tmp_path / "link.jsonl").symlink_to(name)
    with pytest.raises(UserError, match=r"twice \(it is"):
        names_of([name, tmp_path / "link.jsonl"])
    copy = lines(tmp_path / "copy.jsonl", stories(30, "a"))
    with pytest.raises(UserError, match="hold the same"):
        read_texts([name, copy]).sequences(tokenizer, LENGTH)


# -- names -----------------------------------------------------------------------------------------------------------


def test_names_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b=2"):
        Path(name).write_text("text")
    assert names_of(None) is None
    assert names_of("a.txt") == names_of(["a.txt"]) == names_of(Path("a.txt")) == names_of("a.txt=2") == "a.txt"
    assert names_of(["a.txt", Path("c.txt")]) == ["a.txt", "c.txt"]
    assert names_of(["a.txt", "c.txt=2.5"]) == {"a.txt": 1.0, "c.txt": 2.5}
    assert names_of({"a.txt": 1, "c.txt": 3}) == {"a.txt": 1.0, "c.txt": 3.0}
    assert names_of(["a.txt", "b=2"]) == ["a.txt", "b=2"]  # a file is called so


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"a.txt": 0, "b": 1}, "the weight of 'a.txt' is 0"),
        ({"a.txt": -1, "b": 1}, "is -1"),
        ({"a.txt": True, "b": 1}, "is True"),
        (["c.txt=0", "b"], "the weight of 'c.txt' is 0"),
        (["c.txt=-3", "b"], "is -3"),
        (["c.txt=nan", "b"], "is nan"),
        (["a.txt=much", "b"], "the weight of 'a.txt' is 'much'"),
        ([], "names nothing"),
        ([3], "takes names"),
        (3, "takes a name"),
        ("", "takes names"),
    ],
)
def test_wrong_names_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, seen: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("text")
    with pytest.raises(UserError) as error:
        names_of(given)
    assert seen in str(error.value)
