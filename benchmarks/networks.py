"""Shared by the benchmarks: networks with random weights in the shapes of real ones."""

from pathlib import Path

import torch

from autoprune.networks.loading import EMBEDDED

SIZES = {  # hidden, layers, intermediate, heads, KV heads, vocabulary
    "8B": (4096, 32, 14336, 32, 8, 128256),
    "1B": (2048, 20, 8192, 32, 8, 32000),
    "20M": (384, 12, 1024, 12, 6, 8192),
    "100M": (768, 12, 2048, 12, 4, 32000),
}


def random_llama(folder: Path, size: str, device: str, layers: int | None = None) -> str:
    """A Llama with random weights and the embedded model's tokenizer, in `folder`.

    Args:
        folder: where to.
        size: in SIZES.
        device: where random numbers are made.
        layers: another number of them.
    """
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    hidden, depth, intermediate, heads, kv_heads, vocabulary = SIZES[size]
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers or depth, intermediate_size=intermediate,
        num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=size != "8B",
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    tokenizer.save_pretrained(folder)
    return str(folder)
