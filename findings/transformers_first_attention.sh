#!/usr/bin/env bash
# transformers: with the attention of the first layer dropped, plain generation
# is right and every faster way of decoding gives other tokens.
#
# Versions: transformers 5.24.0, torch 2.13.0 (CPU), Python 3.11.
#
# guess: a layer whose attention is replaced by a module that returns zeros
#        leaves its place in the key-value cache empty, and that is all. All
#        ways of greedy decoding give the same tokens, as they do for the whole
#        network, and it does not matter which of the layers was pruned.
#
# Seen:  that holds for layers 1, 2 and 3. For layer 0, generate() with and
#        without a cache still agree. But prompt lookup, an assistant, prefill
#        in chunks, a static cache and a loop of one's own over the cache give
#        other tokens, with no error. get_seq_length() of the cache reads
#        the first layer, which stays empty, so it says 0 after 12 tokens, and
#        a step without position_ids starts at position 0 again. With
#        position_ids given, one step over the cache is exact once more.
#
# Output seen (does each way give the tokens of generate() without a cache?):
#   layer 0: cache yes, prompt lookup no, assistant no, chunks no, static cache no, own loop no
#   layers 1, 2, 3 and the whole network: all yes
#   layer 0: cache length after 12 tokens 0; the next step's logits are off by 0.94, with position_ids by 0.0
#
# Why it matters: dropping the attention of single layers is a common way to
#        prune, and a test with generate() passes. Greedy assisted decoding is
#        expected to change the speed and not the tokens. Keep the attention of
#        layer 0, or give position_ids and compare each way of decoding.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 numpy==2.2.6
cd "$work"
HF_HUB_OFFLINE=1 venv/bin/python -W ignore - <<'PY'
import copy
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
NEW = 20

class NoAttention(nn.Module):
    def forward(self, hidden_states, **_):
        return torch.zeros_like(hidden_states), None

def network(pruned=None):
    torch.manual_seed(0)
    net = LlamaForCausalLM(LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, eos_token_id=None)).eval()
    for weight in net.parameters():
        if weight.dim() > 1:
            weight.data *= 8  # random weights of the usual size hardly look at the position
    if pruned is not None:
        net.model.layers[pruned].self_attn = NoAttention()
    return net

def own_loop(net, ids):
    out = net(ids, use_cache=True)
    for _ in range(NEW):
        token = out.logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, token], 1)
        out = net(token, past_key_values=out.past_key_values, use_cache=True)
    return ids

def same_tokens(net, prompt):
    def generate(**options):
        return net.generate(prompt, max_new_tokens=NEW, do_sample=False, **options)
    ways = {
        "cache": generate(), "prompt lookup": generate(prompt_lookup_num_tokens=3),
        "assistant": generate(assistant_model=copy.deepcopy(net)), "chunks": generate(prefill_chunk_size=4),
        "static cache": generate(cache_implementation="static"), "own loop": own_loop(net, prompt)}
    plain = generate(use_cache=False)
    return {name: torch.equal(tokens, plain) for name, tokens in ways.items()}

def step_error(net, ids, **options):
    """Cache length before the last token, and error of its logits with the cache."""
    cache = net(ids[:, :-1], use_cache=True).past_key_values
    length = cache.get_seq_length()
    last = net(ids[:, -1:], past_key_values=cache, **options).logits[:, -1]
    return length, (net(ids).logits[:, -1] - last).abs().max().item()

prompt = torch.arange(5, 17)[None]
with torch.no_grad():
    for pruned in (None, 0, 1, 2, 3):
        same = same_tokens(network(pruned), prompt)
        name = "whole" if pruned is None else f"no attention in layer {pruned}"
        print(f"{name}:", ", ".join(f"{way} {'yes' if ok else 'no'}" for way, ok in same.items()))
        if pruned == 0:
            assert same.pop("cache"), "plain generate() with a cache is wrong as well"
            assert not any(same.values()), "a way of decoding is right now"
        else:
            assert all(same.values()), "another layer than the first matters too"
    ids = torch.cat([prompt, torch.tensor([[17]])], 1)
    length, error = step_error(network(0), ids)
    _, exact = step_error(network(0), ids, position_ids=torch.tensor([[12]]))
print(f"layer 0: cache length after 12 tokens {length}, next step off by {error:.2f}, with position_ids {exact:.5f}")
assert length == 0 and error > 0.1 and exact < 1e-3
assert step_error(network(1), ids)[0] == 12
print("CONFIRMED: without attention in layer 0, only plain generate() decodes right")
PY
