#!/usr/bin/env bash
# GGUF "gemma3": drop one layer, and other layers get another attention window
# and another RoPE base, since both follow from the layer's number.
#
# Versions: xllamacpp 2026.10.11549 (a prebuilt llama.cpp), gguf 0.19.0,
#           numpy 2.2.6, Python 3.11, CPU.
#
# guess: a layer whose two output norms are zero adds nothing, so the file with
#        that layer left out gives the same log-probabilities as the file with
#        the layer in place. If the kind of each layer (sliding window or full
#        attention) has to be stated, then a file without it does not load.
#
# Seen:  the file loads, nothing is logged, and it is another network. Layers 5,
#        11, 17 ... have full attention and the RoPE base of the file; the others
#        have the window and the base 10000. Layers behind the dropped one move
#        down by one number: here layer 5 (full) becomes number 4 (window), and
#        layer 6 (window) becomes number 5 (full). A window wider than the prompt
#        does not help, as the RoPE bases stay exchanged. Of single layers,
#        only those behind the last full one can be dropped safely.
#        What mends it: the key gemma3.attention.sliding_window_pattern, which is
#        known as one number, the period, is read as an array too, with one
#        boolean (true: window) for each layer that is left.
#
# Output seen (8 layers; largest difference to the file with the layer in place):
#   layer 1 left out:                         1.546306
#   layer 1 left out, window over the prompt: 0.673082
#   layer 7 left out:                         0.000001
#   layer 1 left out, an array as pattern:    0.000000
#
# Why it matters: transformers keeps a layer's kind in layer_types, by layer, so
#        a network with dropped layers is right there. Its GGUF file, written
#        with the keys of the whole network, runs and is quietly worse, and that
#        looks like the price of pruning. Write the pattern as an array.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.2.6
cd "$work"
venv/bin/python - 2>llama.log <<'PY'
import gguf
import numpy as np
import xllamacpp

WIDTH, HEADS, HEAD, LAYERS, VOCABULARY = 64, 4, 16, 8, 3 + 256
PROMPT = list(range(40, 60))

def normal(random, *shape):
    return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

def write(path, layers, window, pattern):
    """Each layer: (seed of its weights, factor on its two output norms)."""
    w = gguf.GGUFWriter(path, "gemma3")
    w.add_context_length(256)
    w.add_embedding_length(WIDTH)
    w.add_block_count(len(layers))
    w.add_feed_forward_length(WIDTH)
    w.add_head_count(HEADS)
    w.add_head_count_kv(HEADS)
    w.add_key_length(HEAD)
    w.add_value_length(HEAD)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1e6)
    w.add_sliding_window(window)
    if pattern is not None:
        w.add_sliding_window_pattern(pattern)
    w.add_vocab_size(VOCABULARY)
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(256)])
    w.add_token_scores([0.0] * VOCABULARY)
    w.add_token_types([2, 3, 3] + [1] * 256)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_tensor("token_embd.weight", normal(np.random.default_rng(0), VOCABULARY, WIDTH))
    w.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for i, (seed, factor) in enumerate(layers):
        random, block = np.random.default_rng(seed), f"blk.{i}."
        for name, size, value in (
                ("attn_norm", WIDTH, 1), ("attn_q_norm", HEAD, 1.5), ("attn_k_norm", HEAD, 1.5), ("ffn_norm", WIDTH, 1),
                ("post_attention_norm", WIDTH, factor), ("post_ffw_norm", WIDTH, factor)):
            w.add_tensor(f"{block}{name}.weight", np.full(size, value, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            w.add_tensor(f"{block}{name}.weight", normal(random, WIDTH, WIDTH))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()

def logprobs(layers, window, pattern=None):
    write("net.gguf", layers, window, pattern)
    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.warmup = "net.gguf", 128, False
    answer = xllamacpp.Server(options).handle_completions({
        "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": VOCABULARY})
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert len(top) > 200, len(top)
    return {t["id"]: t["logprob"] for t in top}

def apart(dropped, window=4, pattern=None):
    """How far the file without a layer is from the one where the layer is there and adds nothing."""
    inplace = logprobs([(i, int(i != dropped)) for i in range(LAYERS)], window)
    leftout = logprobs([(i, 1) for i in range(LAYERS) if i != dropped], window, pattern)
    return max(abs(inplace[t] - leftout[t]) for t in inplace.keys() & leftout.keys())

plain, wide, last = apart(1), apart(1, window=len(PROMPT) + 20), apart(LAYERS - 1)
windows = [i % 6 != 5 for i in range(LAYERS) if i != 1]
array = apart(1, pattern=windows)
print(f"layer 1 left out: {plain:.6f}")
print(f"layer 1 left out, window over the prompt: {wide:.6f}")
print(f"layer 7 left out: {last:.6f}")
print(f"layer 1 left out, an array as pattern: {array:.6f}")
assert plain > 0.1 and wide > 0.1, "a dropped layer no longer changes the kind of others"
assert last < 1e-4, "dropping the last layer now matters as well"
assert array < 1e-4, "the pattern is no longer read as an array"
print("CONFIRMED: in gemma3, a dropped layer changes the windows and RoPE bases of others")
PY
if grep -iE 'sliding|swa|window|rope' "$work/llama.log"; then echo "llama.cpp now says something about windows"; exit 1; fi
