#!/usr/bin/env bash
# torchinfo: multiply-adds of a language model do not depend on the sequence
# length, and a tied head is counted twice.
#
# Versions: torchinfo 1.8.0, fvcore 0.1.5.post20221221, torch 2.13.0 (CPU).
#
# guess: "Total mult-adds" grows with the number of tokens, because every linear
#        layer runs once per token; and a tied output head adds no parameters.
#        torchinfo and fvcore then agree on the linear layers of a network.
#
# Seen:  torchinfo counts a Linear layer once per batch entry, whatever the
#        sequence length: 8 and 64 tokens give the same total. The embedding
#        table counts as V x D multiply-adds, though it is a look-up. The tied
#        matrix is in "Total params" twice. fvcore is right on all three.
#        A 1x1 convolution over the same tokens, which is the same arithmetic,
#        is counted once per token, so two spellings of one layer differ 64-fold.
#
# Output seen:
#   tokens  8: torchinfo     77824, fvcore     360448
#   tokens 64: torchinfo     77824, fvcore    2883584
#   parameters: torchinfo 77824, really 45056
#   one layer over 64 tokens: Linear 4096, Conv1d(kernel 1) 262144
#
# Why it matters: a pruner that divides "after" by "before" compares parameter
#        counts and not work. Cutting a CNN stem and cutting an FFN then have
#        exchange rates that are wrong by the sequence length, and dropping
#        blocks looks worse than it is because the tied head is there twice.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchinfo==1.8.0 fvcore==0.1.5.post20221221 numpy==2.2.6
"$work/venv/bin/python" -W ignore - <<'PY'
import logging
import torch
from torch import nn
import torchinfo
from fvcore.nn import FlopCountAnalysis

logging.disable(logging.WARNING)
VOCABULARY, WIDTH = 512, 64

class Tiny(nn.Module):
    """Blocks of different widths with a tied head."""
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.up = nn.ModuleList([nn.Linear(WIDTH, w, bias=False) for w in (64, 24, 8)])
        self.down = nn.ModuleList([nn.Linear(w, WIDTH, bias=False) for w in (64, 24, 8)])
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        for up, down in zip(self.up, self.down):
            x = x + down(up(x).relu())
        return self.head(x)

net = Tiny().eval()
true_parameters = sum(p.numel() for p in net.parameters())
linear = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Linear))
totals = {}
for tokens in (8, 64):
    ids = torch.zeros(1, tokens, dtype=torch.long)
    info = torchinfo.summary(net, input_data=ids, verbose=0)
    totals[tokens] = info.total_mult_adds
    counted = FlopCountAnalysis(net, ids).total()
    print(f"tokens {tokens:2d}: torchinfo {info.total_mult_adds:9d}, fvcore {int(counted):10d}")
    assert counted == tokens * linear
print(f"parameters: torchinfo {info.total_params}, really {true_parameters}")
as_linear = torchinfo.summary(nn.Linear(64, 64, bias=False), (1, 64, 64), verbose=0).total_mult_adds
as_conv = torchinfo.summary(nn.Conv1d(64, 64, 1, bias=False), (1, 64, 64), verbose=0).total_mult_adds
print(f"one layer over 64 tokens: Linear {as_linear}, Conv1d(kernel 1) {as_conv}")

assert totals[8] == totals[64], "torchinfo now counts tokens"
assert info.total_params == true_parameters + VOCABULARY * WIDTH, "the tied head is now counted once"
assert as_conv == 64 * as_linear, "Linear and Conv1d now agree"
print("CONFIRMED: torchinfo ignores the sequence length and counts tied weights twice")
PY
