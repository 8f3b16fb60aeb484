"""Documents of a sequence that do not see each other, and chats of which only the assistant's turns are learned."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune import training
from autoprune.data.chats import Chat
from autoprune.data.layout import Layout, answer_spans
from autoprune.data.text import NOTHING, read_texts
from autoprune.errors import Notice, UserError
from autoprune.networks.loading import family_of
from autoprune.networks.text import TextView
from autoprune.tasks.text_teaching import check_separation, counted, positions_of
from autoprune.tasks.text_training import DEFAULTS, TextTraining
from tests import families

LENGTH = 24
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CHATS: list[Chat] = [
    [
        {"role": "user", "content": f"what is {n}?"},
        {"role": "assistant", "content": f"a number, {n}"},
        {"role": "user", "content": "thanks"},
        {"role": "assistant", "content": "welcome"},
    ]
    for n in range(12)
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: str) -> Any:
    """One token for each byte; 256 opens a sequence, 257 ends a document or a turn."""
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tiny_model)
    made.add_special_tokens({"eos_token": "</s>"})
    made.chat_template = TEMPLATE
    return made


def chats(path: Path) -> str:
    path.write_text("\n".join(json.dumps({"messages": row}) for row in CHATS), encoding="utf-8")
    return str(path)


def lines(path: Path, count: int = 20) -> str:
    path.write_text("\n".join(json.dumps({"text": f"text number {n}"}) for n in range(count)), encoding="utf-8")
    return str(path)


def how(**own: Any) -> training.TrainingSettings:
    return training.settings_of(DEFAULTS, {"max_steps": 3, "batch": 4, **own})


# -- where documents are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opens", [True, False])
def test_documents_are_numbered_beside_their_tokens(tmp_path: Path, tokenizer: Any, opens: bool) -> None:
    if not opens:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.bos_token = None
    texts = read_texts(lines(tmp_path / "t.jsonl"))
    found = texts.sequences(tokenizer, LENGTH)
    layout = texts.layout(found, tokenizer, LENGTH, answers=False)
    tokens_NT = found.tokens()
    assert layout.documents.shape == tokens_NT.shape
    assert not layout.answers.any()
    opening = LENGTH - len(tokenizer("").input_ids)
    stream, numbers = tokens_NT[:, -opening:].flatten(), layout.documents[:, -opening:].flatten()
    for n in range(18):
        said = tokenizer.decode(stream[numbers == n])
        assert said == f"text number {n}</s>"[: len(said)]
    several = read_texts({lines(tmp_path / "u.jsonl", 30): 1.0, chats(tmp_path / "c.jsonl"): 2.0})
    found = several.sequences(tokenizer, LENGTH)
    assert several.layout(found, tokenizer, LENGTH, True).answers.shape == found.tokens().shape


def test_positions_begin_anew_with_every_document() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [2, 2, 2, 2, 2, 2], [5, 6, 7, 7, 7, 7]])
    assert positions_of(documents).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 2, 3]]


def test_the_first_token_of_a_document_is_not_learned_from_the_one_before() -> None:
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    labels = torch.tensor([[2, 3, 4, 5, NOTHING]])
    layout = Layout(torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[False, True, False, True, False]]))
    assert counted(labels, layout, how(separate_documents=True)).tolist() == [[2, NOTHING, 4, 5, NOTHING]]
    assert counted(labels, layout, how(answers_only=True)).tolist() == [[2, NOTHING, 4, NOTHING, NOTHING]]
    assert labels.tolist() == [[2, 3, 4, 5, NOTHING]]
    assert tokens.shape == layout.documents.shape


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
def test_documents_do_not_see_each_other(name: str) -> None:
    model = families.tiny_model(name)
    tokens = torch.randint(0, 50, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    documents = torch.arange(LENGTH).expand(3, LENGTH) // 10
    check_separation(model, tokens, documents)  # the second document's logits are those that it has alone


class Mixing(nn.Module):
    """Every token sees all before it, whatever positions say."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, input_ids: Tensor, use_cache: bool, position_ids: Tensor | None = None) -> Any:
        class Out:
            logits = self.weight * input_ids.cumsum(1)[..., None].float()

        return Out


class Bare(Mixing):
    """It takes no positions."""

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:  # type: ignore[override]
        return super().forward(input_ids, use_cache)


@pytest.mark.parametrize(("network", "said"), [(Mixing, "attends across documents"), (Bare, "takes no positions")])
def test_a_network_that_mixes_documents_is_refused(network: type[nn.Module], said: str) -> None:
    documents = torch.arange(LENGTH).expand(3, LENGTH) // 10
    with pytest.raises(UserError, match=said):
        check_separation(network(), torch.ones(3, LENGTH, dtype=torch.long), documents)


# -- training on them ------------------------------------------------------------------------------------------------


def examples_of(data: str, tokenizer: Any, name: str = "llama") -> TextTraining:
    model = families.tiny_model(name)
    model.resize_token_embeddings(260, mean_resizing=False)
    texts = read_texts(data)
    found = texts.sequences(tokenizer, LENGTH)
    tokens = found.tokens()
    view = TextView(model.eval(), family_of(name))
    return TextTraining(view, tokens, tokens[:2], lambda answers: texts.layout(found, tokenizer, LENGTH, answers), "x")


def loss_of(examples: TextTraining, some: Tensor, **own: Any) -> float:
    return float(examples.loss(examples.dense, some, how(weight=0.0, **own), torch.Generator()).detach())


def test_the_loss_of_documents_apart_is_that_of_each_alone(tmp_path: Path, tokenizer: Any) -> None:
    examples = examples_of(lines(tmp_path / "t.jsonl"), tokenizer)
    assert examples._layout_of is not None
    row, numbers = examples._tokens_NT[1], examples._layout_of(False).documents[1]
    losses = []
    for number in sorted(set(numbers.tolist())):
        (where,) = (numbers == number).nonzero(as_tuple=True)
        ids = row[where][None]
        logits = examples.dense(input_ids=ids).logits[0, :-1]
        losses.append(nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
    assert len(losses) > 1
    expected = float(torch.cat(losses).mean().detach())
    assert loss_of(examples, torch.tensor([1]), separate_documents=True) == pytest.approx(expected, rel=1e-4)
    assert loss_of(examples, torch.tensor([1])) != pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("own", [{}, {"top_k": 9, "cached": True}, {"distill": "kl,hidden-mse"}])
def test_the_dense_network_is_at_no_distance_from_itself(tmp_path: Path, tokenizer: Any, own: dict[str, Any]) -> None:
    """It is asked with the same positions, and about the same tokens."""
    examples = examples_of(chats(tmp_path / "c.jsonl"), tokenizer)
    settings = how(weight=1.0, separate_documents=True, answers_only=True, **own)
    loss = examples.loss(examples.dense, torch.arange(6), settings, torch.Generator())
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)


def test_only_answers_are_learned(tmp_path: Path, tokenizer: Any) -> None:
    texts = read_texts(chats(tmp_path / "c.jsonl"))
    found = texts.sequences(tokenizer, LENGTH)
    layout = texts.layout(found, tokenizer, LENGTH, answers=True)
    opening = len(tokenizer("").input_ids)
    tokens, said = found.tokens()[:, opening:].flatten(), layout.answers[:, opening:].flatten()
    heard = tokenizer.decode(tokens[said])
    assert heard.startswith("a number, 0</s>welcome</s>a number, 1</s>welcome</s>")
    assert not any(word in heard for word in ("what", "thanks", "<assistant>"))
    examples = examples_of(chats(tmp_path / "c.jsonl"), tokenizer)
    some = torch.arange(8)
    ids = examples._tokens_NT[some]
    logp = examples.dense(input_ids=ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    expected = float(-logp[layout.answers[some][:, 1:]].mean().detach())
    assert loss_of(examples, some, answers_only=True) == pytest.approx(expected, rel=1e-4)


def test_a_step_without_any_answer_learns_nothing(tmp_path: Path, tokenizer: Any) -> None:
    examples = examples_of(chats(tmp_path / "c.jsonl"), tokenizer)
    assert examples._layout_of is not None
    without = (~examples._layout_of(True).answers[:, 1:].any(1)).nonzero()[0]
    examples.dense.requires_grad_(True)
    loss = examples.loss(examples.dense, without, how(answers_only=True), torch.Generator())
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in examples.dense.parameters())


# -- mistakes --------------------------------------------------------------------------------------------------------


def test_texts_have_no_answers(tmp_path: Path, tokenizer: Any) -> None:
    examples = examples_of(lines(tmp_path / "t.jsonl"), tokenizer)
    with pytest.raises(UserError, match="hold no such turn"):
        loss_of(examples, torch.arange(2), answers_only=True)


def test_one_long_text_has_nothing_to_separate(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "t.txt").write_text("one text " * 40)
    examples = examples_of(str(tmp_path / "t.txt"), tokenizer)
    with pytest.warns(Notice, match="every sequence of the run's data is of one document"):
        loss_of(examples, torch.arange(2), separate_documents=True)


def test_a_template_that_rewrites_turns_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages | length }} turns" + TEMPLATE)
    text = tokenizer.apply_chat_template(CHATS[0], tokenize=False)
    with pytest.raises(UserError, match=r"turn 2 cannot be told from the others: leave answers_only"):
        answer_spans(CHATS[0], text, tokenizer, "record 1 of 'c.jsonl'")
