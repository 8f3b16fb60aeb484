"""The tokenizer in a GGUF file: its tokens, its merges, how text is split first, and the chat template.

llama.cpp knows two kinds: `gpt2`, which merges bytes, and `llama`, SentencePiece's, which merges characters by score.
It knows a splitting of text by name alone, so that a tokenizer is recognised by what it splits at.
"""

import json
from collections.abc import Mapping
from typing import Any

from autoprune.errors import UserError

GPT2, SENTENCE_PIECE = "gpt2", "llama"

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {_LETTERS + r"\p{N}{1,3}" + _REST: "llama-bpe", _LETTERS + r"\p{N}" + _REST: "qwen2"}
"""Regular expression -> llama.cpp's name of the splitting."""

SPECIAL = ("bos", "eos", "unk", "sep", "pad", "mask")


def add_vocabulary(writer: Any, tokenizer: Any, size: int, pre: str | None = None) -> None:
    """Add a tokenizer.

    Args:
        writer: a `gguf.GGUFWriter`.
        tokenizer: as transformers has it.
        size: rows of the embedding; rows without a token get names of their own.
        pre: llama.cpp's name of how text is split; None: it is recognised.

    Raises:
        UserError: llama.cpp has no such tokenizer, or its way to split text is not recognised.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"a {type(tokenizer).__name__} has no tokenizer.json, which GGUF files are written from.")
    described = json.loads(backend.to_str())
    model = _kind(described)
    tokens, types = _tokens(described, size, model)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if model == GPT2:
        writer.add_tokenizer_pre(pre or _splitting(described))
        writer.add_token_merges(_merges(described))
    else:
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(described, tokens))
        writer.add_add_space_prefix(_has_prefix(described))
    _add_special(writer, tokenizer)


def _kind(described: Mapping[str, Any]) -> str:
    model = described["model"]
    if model["type"] != "BPE":
        raise UserError(
            f"GGUF files are written with tokenizers of the kind BPE; this one is {model['type']}: use --to hf."
        )
    return SENTENCE_PIECE if model.get("byte_fallback") else GPT2


def _tokens(described: Mapping[str, Any], size: int, model: str) -> tuple[list[str], list[int]]:
    """The token of each row of the embedding, and its type."""
    from gguf import TokenType

    by_id = {number: token for token, number in described["model"]["vocab"].items()}
    added = {token["id"]: token for token in described.get("added_tokens", ())}
    unknown = described["model"].get("unk_token")
    tokens, types = [], []
    for number in range(size):
        if number in added:
            tokens.append(added[number]["content"])
            types.append(TokenType.CONTROL if added[number]["special"] else TokenType.USER_DEFINED)
        elif number in by_id:
            tokens.append(by_id[number])
            types.append(TokenType.BYTE if model == SENTENCE_PIECE and _is_byte(by_id[number]) else TokenType.NORMAL)
        else:
            tokens.append(f"[PAD{number}]")
            types.append(TokenType.UNUSED)
        if model == SENTENCE_PIECE and tokens[-1] == unknown:
            types[-1] = TokenType.UNKNOWN
    return tokens, [int(one) for one in types]


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _pairs(described: Mapping[str, Any]) -> list[list[str]]:
    """The two parts of each merge, the first merge first. Older files have them as one text."""
    merges = described["model"]["merges"]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def _merges(described: Mapping[str, Any]) -> list[str]:
    pairs = _pairs(described) or _harmless(described["model"]["vocab"])
    if any(" " in part for pair in pairs for part in pair):
        raise UserError("a merge of this tokenizer has a blank in a token, which GGUF files cannot hold: use --to hf.")
    return [" ".join(pair) for pair in pairs]


def _harmless(vocabulary: Mapping[str, int]) -> list[list[str]]:
    """One merge that makes no token, so that nothing is merged: llama.cpp loads no tokenizer without any."""
    tokens = sorted(token for token in vocabulary if len(token) == 1)
    return next(([[a, b]] for a in tokens for b in tokens if a + b not in vocabulary), [])


def _scores(described: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """What SentencePiece merges by: the earlier a merge, the higher the score of what it makes."""
    rank: dict[str, int] = {}
    for number, pair in enumerate(_pairs(described)):
        rank.setdefault("".join(pair), number)
    return [-float(rank.get(token, 0)) for token in tokens]


def _steps(part: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    return list(part[inner]) if part["type"] == "Sequence" else [part]


def _splitting(described: Mapping[str, Any]) -> str:
    """llama.cpp's name of how a tokenizer of bytes splits text.

    Raises:
        UserError: it is none that this exporter recognises.
    """
    steps = _steps(described["pre_tokenizer"], "pretokenizers")
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        found = SPLITS.get(steps[0]["pattern"].get("Regex", ""))
        if found:
            return found
    raise UserError(
        f"how this tokenizer splits text ({', '.join(kinds) or 'not at all'}) is none that this exporter recognises: "
        "give llama.cpp's name for it, as in pre=llama-bpe."
    )


def _has_prefix(described: Mapping[str, Any]) -> bool:
    """Whether a blank is put before the text."""
    normalizers = _steps(described["normalizer"], "normalizers")
    splitters = _steps(described["pre_tokenizer"], "pretokenizers")
    return any(step["type"] == "Prepend" for step in normalizers) or any(
        step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never" for step in splitters
    )


def _add_special(writer: Any, tokenizer: Any) -> None:
    """The special tokens, which of them a text begins and ends with, and the chat template."""
    for name in SPECIAL:
        number = getattr(tokenizer, f"{name}_token_id", None)
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    writer.add_add_bos_token(len(whole) > len(plain) and whole[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(whole) > len(plain) and whole[-1] == tokenizer.eos_token_id)
    template = getattr(tokenizer, "chat_template", None)
    if template:
        named = (
            [{"name": name, "template": text} for name, text in template.items()]
            if isinstance(template, dict)
            else template
        )
        writer.add_chat_template(named)
