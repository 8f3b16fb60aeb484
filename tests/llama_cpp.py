"""llama.cpp in the test's own process: what it answers from a GGUF file. It listens on the loopback while it lives."""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Runtime:
    """A loaded file."""

    def __init__(self, server: Any, vocabulary: int) -> None:
        self._server, self._vocabulary = server, vocabulary

    def complete(self, prompt: Sequence[int] | str, tokens: int = 1, most: int | None = None) -> list[dict[str, Any]]:
        """For each new token, greedily chosen: its number, and the log-probabilities of the most probable ones."""
        asked = {
            "prompt": list(prompt) if not isinstance(prompt, str) else prompt, "max_tokens": tokens,
            "temperature": 0, "logprobs": most or self._vocabulary, "ignore_eos": True, "cache_prompt": False,
        }  # fmt: skip
        answer = self._server.handle_completions(asked)
        return list(answer["choices"][0]["logprobs"]["content"])

    def log_probabilities(self, prompt: Sequence[int]) -> Tensor:
        """Of each token behind a prompt, `[V]`."""
        found = torch.full((self._vocabulary,), float("nan"))
        for entry in self.complete(prompt)[0]["top_logprobs"]:
            found[entry["id"]] = entry["logprob"]
        return found

    def greedy(self, prompt: Sequence[int] | str, tokens: int) -> list[int]:
        """The most probable continuation."""
        return [entry["id"] for entry in self.complete(prompt, tokens, most=1)]

    def tokens(self, text: str, special: bool = False) -> list[int]:
        """How llama.cpp splits a text; `special` adds the tokens that it begins and ends with."""
        body = json.dumps({"content": text, "add_special": special}).encode()
        request = urllib.request.Request(f"{self._server.listening_address}/tokenize", body)
        with urllib.request.urlopen(request) as answer:
            return list(json.load(answer)["tokens"])


@contextmanager
def loaded(path: Path, vocabulary: int, context: int = 64) -> Iterator[Runtime]:
    """llama.cpp with a file."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # half precision by default
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    try:
        yield Runtime(server, vocabulary)
    finally:
        del server
