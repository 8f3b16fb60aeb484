#!/usr/bin/env bash
# transformers: one packed checkpoint, two ways of loading it, and with different
# bits for different layers one way silently gives other weights.
#
# Versions: transformers 5.24.0, compressed-tensors 0.20.1, torch 2.13.0 (CPU),
#           numpy 2.2.6, Python 3.11.
#
# guess: a checkpoint in the format "pack-quantized" holds one set of weights.
#        from_pretrained() unpacks them at the first forward pass, and with
#        CompressedTensorsConfig(dequantize=True) while it loads. Both give the
#        weights that were saved, or both fail.
#
# Seen:  each way fails where the other is exact. With 4 bits for the attention
#        and 8 for the MLPs, the usual way is exact. dequantize=True reads all
#        layers by the first group of the configuration, so it takes the 8-bit
#        words for 4-bit ones, gets twice as many columns, cuts them to the saved
#        shape and goes on: no error, no warning about it, nothing in the loading
#        info. The MLPs are as good as gone, and the error is larger than that of
#        not quantising. With the two groups the other way round it fails loudly.
#        With zero points (symmetric=False) the usual way stops, as it expects
#        them unpacked (llm-compressor issue 1618 is near to that), and
#        dequantize=True is exact. With zero points and mixed bits, the usual way
#        stops, and dequantize=True silently gives other weights.
#
# Output seen (largest error of a logit; the quantised network is the measure):
#   4 bits:                          usual 0.00000,      dequantize 0.00000,      unquantised 0.05935
#   attention 4, MLP 8 bits:         usual 0.00000,      dequantize 0.09367,      unquantised 0.05595
#     relative error of an MLP's weights: usual 0.00, dequantize 1.00
#   attention 8, MLP 4 bits:         usual 0.00000,      dequantize RuntimeError, unquantised 0.01769
#   4 bits, zero points:             usual RuntimeError, dequantize 0.00000,      unquantised 0.04892
#   attention 4, MLP 8, zero points: usual RuntimeError, dequantize 0.09303,      unquantised 0.04890
#
# Why it matters: a search for bits by layer ends in exactly such checkpoints,
#        and dequantize=True is how one loads them to train on. What is then
#        trained, or evaluated, is another network. Load mixed bits the usual
#        way, and compare the logits with those from before saving.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 compressed-tensors==0.20.1 numpy==2.2.6
cd "$work"
HF_HUB_OFFLINE=1 venv/bin/python -W ignore - 2>load.log <<'PY'
import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config, fake_quantize)
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import CompressedTensorsConfig, LlamaConfig, LlamaForCausalLM

GROUP, UP = 32, "model.layers.0.mlp.up_proj"
ids = torch.arange(5, 25)[None]

def network():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2)).eval()

def save(path, groups, symmetric):
    """Quantises, and saves packed. The logits and one weight of the quantised network."""
    net = network()
    schemes = {f"group_{i}": QuantizationScheme(targets=[target], weights=QuantizationArgs(
        num_bits=bits, type="int", symmetric=symmetric, strategy="group", group_size=GROUP))
        for i, (target, bits) in enumerate(groups)}
    apply_quantization_config(net, QuantizationConfig(config_groups=schemes, ignore=["lm_head"], format="pack-quantized"))
    for name, layer in net.named_modules():
        if hasattr(layer, "weight_scale"):
            blocks, args = layer.weight.data.unflatten(1, (-1, GROUP)), layer.quantization_scheme.weights
            scale, zero = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args)
            layer.weight_scale.data.copy_(scale)
            if not symmetric:
                layer.weight_zero_point.data.copy_(zero)
            if name == UP:
                up = fake_quantize(layer.weight.data, scale, zero, args)
    logits = net(ids).logits  # the layers quantise their weights here
    compressor = ModelCompressor.from_pretrained_model(net)
    compressor.compress_model(net)
    net.save_pretrained(path)
    compressor.update_config(path)
    return logits, up

def load(path, logits, up, **options):
    """Largest error of a logit, relative error of one weight; or the name of the error."""
    try:
        net, info = LlamaForCausalLM.from_pretrained(path, output_loading_info=True, **options)
    except RuntimeError as error:
        return type(error).__name__, None
    assert not any(info.values()), info
    found = net.eval()(ids).logits
    wrong = net.get_submodule(UP).weight - up
    return (found - logits).abs().max().item(), (wrong.norm() / up.norm()).item()

attention, mlp, linear = "re:.*self_attn.*", "re:.*mlp.*", "Linear"
got = {}
with torch.no_grad():
    for name, groups, symmetric in (
            ("4 bits", [(linear, 4)], True), ("attention 4, MLP 8 bits", [(attention, 4), (mlp, 8)], True),
            ("attention 8, MLP 4 bits", [(attention, 8), (mlp, 4)], True), ("4 bits, zero points", [(linear, 4)], False),
            ("attention 4, MLP 8, zero points", [(attention, 4), (mlp, 8)], False)):
        kept = save(name, groups, symmetric)
        whole = (network()(ids).logits - kept[0]).abs().max().item()
        usual = load(name, *kept)
        dense = load(name, *kept, quantization_config=CompressedTensorsConfig(dequantize=True))
        got[name] = usual[0], dense[0], whole, usual[1], dense[1]
        shown = [value if isinstance(value, str) else f"{value:.5f}" for value in got[name][:3]]
        print(f"{name}: usual {shown[0]}, dequantize {shown[1]}, unquantised {shown[2]}")

one, mixed, turned, zeros, both = got.values()
print(f"attention 4, MLP 8 bits, relative error of an MLP's weights: usual {mixed[3]:.2f}, dequantize {mixed[4]:.2f}")
assert one[0] < 1e-5 and one[1] < 1e-5 and mixed[0] < 1e-5 and turned[0] < 1e-5, "plain loading is wrong as well"
for case in (mixed, both):
    assert not isinstance(case[1], str) and case[1] > case[2] and case[4] > 0.5, "mixed bits with dequantize=True changed"
assert turned[1] == "RuntimeError", "dequantize=True now reads each group by its own bits"
assert zeros[0] == "RuntimeError" and zeros[1] < 1e-5 and both[0] == "RuntimeError", "zero points now load the usual way"
print("CONFIRMED: dequantize=True loads a checkpoint of mixed bits as another network, without a word")
PY
