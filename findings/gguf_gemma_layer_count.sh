#!/usr/bin/env bash
# GGUF "gemma3" and "gemma2": drop one layer of the 27B networks, the last one
# even, and the attention of every other layer is scaled in another way.
#
# Versions: xllamacpp 2026.10.11549 (a prebuilt llama.cpp), gguf 0.19.0,
#           numpy 2.2.6, Python 3.11, CPU.
#
# guess: the last layer of a network can be left out of its file, as no other
#        layer's number changes. If its two output norms are zero, it adds
#        nothing, and both files give the same log-probabilities, however many
#        layers there are. All that concerns the other layers stands in the file.
#
# Seen:  that holds for a network of 61 layers, and not for one of 62. A gemma3
#        file with exactly 62 layers (or a gemma2 file with exactly 46) is taken for
#        the 27B network, whose queries are divided by sqrt(embedding length /
#        heads) and not by sqrt(key length). With 61 layers each layer that is
#        left has its attention scores multiplied by sqrt(168 / 128) = 1.15 for
#        the sizes of Gemma 3 27B. Nothing is logged. The key attention.scale is
#        not read here: with or without it the answers are the same. Where both
#        square roots are equal, the layer can be left out.
#        What mends it: multiply the weights of each layer's query norm (gemma2:
#        of attn_q) by sqrt(key length * heads / embedding length), or keep a
#        last layer of zeros.
#
# Output seen (largest difference between "left out" and "in place and zero"):
#                                        gemma3, 62   gemma2, 46
#   left out:                                0.6370       0.3673
#   with one layer fewer in both:            0.0000       0.0000
#   embedding length = heads * key length:   0.0000       0.0000
#   attention.scale written:                 0.6370       0.3673
#   queries multiplied:                      0.0009       0.0006
#
# Why it matters: the last layers are the usual ones to drop, and 27B is the
#        size that one wants smaller. transformers scales by a setting of its
#        own (query_pre_attn_scalar), so the pruned network is right there, and in
#        llama.cpp all its attention scores are 15 % too large (gemma2: 6 %).
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.2.6
cd "$work"
venv/bin/python - 2>llama.log <<'PY'
import gguf
import numpy as np
import xllamacpp

HEADS, VOCABULARY = 4, 3 + 256

def normal(random, *shape):
    return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

def write(path, arch, factors, width, head, queries, scale):
    """Each layer: factor on its two output norms. `queries` is a factor on all queries."""
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(256)
    w.add_embedding_length(width)
    w.add_block_count(len(factors))
    w.add_feed_forward_length(32)
    w.add_head_count(HEADS)
    w.add_head_count_kv(HEADS)
    w.add_key_length(head)
    w.add_value_length(head)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_sliding_window(64)
    if scale:
        w.add_attention_scale(scale)
    w.add_vocab_size(VOCABULARY)
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(256)])
    w.add_token_scores([0.0] * VOCABULARY)
    w.add_token_types([2, 3, 3] + [1] * 256)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    random = np.random.default_rng(0)
    w.add_tensor("token_embd.weight", normal(random, VOCABULARY, width))
    w.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for i, factor in enumerate(factors):
        norms = [("attn_norm", width, 1), ("ffn_norm", width, 1), ("post_attention_norm", width, factor),
                 ("post_ffw_norm", width, factor)]
        if arch == "gemma3":
            norms += [("attn_q_norm", head, queries), ("attn_k_norm", head, 1)]
        for name, size, value in norms:
            w.add_tensor(f"blk.{i}.{name}.weight", np.full(size, value, np.float32))
        for name, outputs, inputs in (
                ("attn_q", HEADS * head, width), ("attn_k", HEADS * head, width), ("attn_v", HEADS * head, width),
                ("attn_output", width, HEADS * head), ("ffn_gate", 32, width), ("ffn_up", 32, width),
                ("ffn_down", width, 32)):
            weight = normal(random, outputs, inputs)
            if arch == "gemma2" and name == "attn_q":
                weight = weight * np.float32(queries)
            w.add_tensor(f"blk.{i}.{name}.weight", weight)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()

def logprobs(arch, factors, width, head, queries=1.0, scale=None):
    write("net.gguf", arch, factors, width, head, queries, scale)
    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.warmup = "net.gguf", 128, False
    options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # no rounding to half precision
    options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    answer = xllamacpp.Server(options).handle_completions({
        "prompt": list(range(40, 60)), "max_tokens": 1, "temperature": 0, "logprobs": VOCABULARY})
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert len(top) > 200, len(top)
    return {t["id"]: t["logprob"] for t in top}

def apart(arch, layers, width, head, **leftout):
    """Between the file whose last layer adds nothing, and the one without that layer."""
    one = logprobs(arch, [1] * (layers - 1) + [0], width, head)
    other = logprobs(arch, [1] * (layers - 1), width, head, **leftout)
    return max(abs(one[t] - other[t]) for t in one.keys() & other.keys())

# A head of 16: embedding / heads to key length are as 168 to 128 and as 144 to 128, as in the 27B networks.
for arch, whole, width in (("gemma3", 62, 84), ("gemma2", 46, 72)):
    queries = (16 * HEADS / width) ** 0.5
    got = {
        f"{whole} layers": apart(arch, whole, width, 16),
        f"{whole - 1} layers": apart(arch, whole - 1, width, 16),
        f"{whole} layers, embedding = heads * key": apart(arch, whole, 64, 16),
        f"{whole} layers, attention.scale written": apart(arch, whole, width, 16, scale=(HEADS / width) ** 0.5),
        f"{whole} layers, queries * {queries:.3f}": apart(arch, whole, width, 16, queries=queries)}
    for name, value in got.items():
        print(f"{arch}, {name}: {value:.4f}")
    plain, fewer, equal, key, mended = got.values()
    assert plain > 0.02 and key > 0.02, "the number of layers no longer matters, or attention.scale is read"
    assert max(fewer, equal) < 1e-4 and mended < plain / 10, "leaving out the last layer matters elsewhere too"
print("CONFIRMED: dropping the last layer of Gemma's 27B rescales the attention of all others")
PY
if grep -iE 'attn.?scale|attention.?scale|27B' "$work/llama.log"; then echo "llama.cpp now says something about the scale"; exit 1; fi
