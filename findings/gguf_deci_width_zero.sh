#!/usr/bin/env bash
# GGUF "deci": an FFN of width 0 switches off the attention of its layer as well.
#
# Versions: xllamacpp 2026.10.11549 (a prebuilt llama.cpp), gguf 0.19.0,
#           numpy 2.2.6, Python 3.11, CPU.
#
# guess: "deci" is the GGUF architecture for networks whose layers differ. A
#        layer whose feed_forward_length is 0, and which has no FFN tensors,
#        runs its attention and then passes the result on. It gives the same
#        logits as the same layer with an FFN whose weights are all zero.
#
# Seen:  the file loads without an error or a warning about it, and the layer
#        does nothing at all. Its attention weights are read, and then have no
#        effect: the log-probabilities equal those of a file in which the
#        layer is absent, and stay the same with other attention weights.
#        With an FFN of width 32 and zero weights the attention counts.
#
# Output seen (largest difference of the next token's log-probabilities):
#   width 0 against other attention weights in that layer: 0.0
#   width 0 against the layer left out:                    0.0
#   width 0 against a zero FFN of width 32:                0.81
#   zero FFN of width 32, other attention weights:         1.43
#
# Why it matters: a search that drops an FFN and keeps the attention is common.
#        Exported in the obvious way, the network runs in llama.cpp and is
#        another network than the one that was evaluated. Write a narrow FFN of
#        zeros for a dropped one.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.2.6
cd "$work"
venv/bin/python - 2>llama.log <<'PY'
import gguf
import numpy as np
import xllamacpp

WIDTH, HEADS, HEAD, VOCABULARY = 64, 4, 16, 3 + 256

def normal(random, *shape):
    return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

def write(path, layers):
    """Each layer: (seed of its weights, FFN width, factor on the FFN weights)."""
    w = gguf.GGUFWriter(path, "deci")
    w.add_context_length(256)
    w.add_embedding_length(WIDTH)
    w.add_block_count(len(layers))
    w.add_feed_forward_length([ffn for _, ffn, _ in layers])
    w.add_head_count([HEADS] * len(layers))
    w.add_head_count_kv([HEADS] * len(layers))
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(HEAD)
    w.add_key_length(HEAD)
    w.add_value_length(HEAD)
    w.add_vocab_size(VOCABULARY)
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)])
    w.add_token_scores([0.0] * VOCABULARY)
    w.add_token_types([2, 3, 3] + [6] * 256)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    random = np.random.default_rng(0)
    w.add_tensor("token_embd.weight", normal(random, VOCABULARY, WIDTH) * 8)
    w.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    w.add_tensor("output.weight", normal(random, VOCABULARY, WIDTH))
    for i, (seed, ffn, factor) in enumerate(layers):
        random, block = np.random.default_rng(seed), f"blk.{i}."
        w.add_tensor(block + "attn_norm.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            w.add_tensor(f"{block}{name}.weight", normal(random, WIDTH, WIDTH))
        if ffn:
            factor = np.float32(factor)
            w.add_tensor(block + "ffn_norm.weight", np.ones(WIDTH, np.float32))
            w.add_tensor(block + "ffn_gate.weight", normal(random, ffn, WIDTH) * factor)
            w.add_tensor(block + "ffn_up.weight", normal(random, ffn, WIDTH) * factor)
            w.add_tensor(block + "ffn_down.weight", normal(random, WIDTH, ffn) * factor)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()

def logprobs(path):
    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.warmup = path, 128, False
    answer = xllamacpp.Server(options).handle_completions({
        "prompt": list(range(40, 60)), "max_tokens": 1, "temperature": 0,
        "logprobs": VOCABULARY})
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {t["id"]: t["logprob"] for t in top}

first, last = (1, 64, 1), (3, 96, 1)
got = {}
for name, middle in (("width 0", [(2, 0, 0)]), ("other attention", [(9, 0, 0)]),
                     ("left out", []), ("zeros", [(2, 32, 0)]), ("other zeros", [(9, 32, 0)])):
    write("net.gguf", [first, *middle, last])
    got[name] = logprobs("net.gguf")
    assert len(got[name]) > 200, len(got[name])

def apart(a, b):
    return max(abs(got[a][t] - got[b][t]) for t in got[a].keys() & got[b].keys())

print("width 0 against other attention weights in that layer:", apart("width 0", "other attention"))
print("width 0 against the layer left out:", apart("width 0", "left out"))
print("width 0 against a zero FFN of width 32:", apart("width 0", "zeros"))
print("zero FFN of width 32, other attention weights:", apart("zeros", "other zeros"))
assert apart("width 0", "other attention") < 1e-6, "attention beside a width-0 FFN now counts"
assert apart("width 0", "left out") < 1e-6
assert apart("width 0", "zeros") > 0.1 and apart("zeros", "other zeros") > 0.1
print("CONFIRMED: in deci, an FFN of width 0 drops the attention too")
PY
