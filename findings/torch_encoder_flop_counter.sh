#!/usr/bin/env bash
# torch's own FLOP counter: an nn.TransformerEncoder counts as nothing in
# eval() under no_grad(), and a smaller one counts over a hundred times more.
#
# Versions: torch 2.13.0 (CPU), numpy 2.2.6, Python 3.11.
#
# guess: FlopCounterMode sees every operator that runs, so one network on one
#        input has one count (less dropout): the same in train() and eval(), and
#        with and without gradients. A network with narrower FFNs counts less.
#
# Seen:  one encoder has three counts. train() is right. eval() with gradients
#        loses the attention, as the CPU's fused attention operator has no
#        formula (PyTorch issue 195460 reports that part). eval() under
#        no_grad() runs each layer as one fused operator, which has no formula
#        either: the whole encoder counts 0, and only the classifier behind it
#        is left. There is no warning, and no sign that a count is incomplete.
#        Details of a layer decide whether the fused operator runs: with an odd
#        number of heads it does not. So the smaller network, of 5 heads and
#        FFNs of 180, counts 121 times the larger one.
#
# Output seen (4 sequences of 32 tokens, width 60, two layers and a classifier):
#   6 heads, FFN 240: train 24238080, eval 22272000, eval and no_grad   153600
#   5 heads, FFN 180: train 20551680, eval 18585600, eval and no_grad 18585600
#
# Why it matters: "before" and "after" are nearly always counted in eval() under
#        no_grad(). There the ratio can be 1 whatever was pruned, or can say
#        that pruning made the network a hundred times heavier. Count in train()
#        with dropout, or compare with a count by hand.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.2.6
cd "$work"
venv/bin/python -W ignore - <<'PY'
import warnings
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

BATCH, TOKENS, WIDTH, LAYERS, CLASSES = 4, 32, 60, 2, 10

def network(heads, ffn):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, heads, ffn, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False), nn.Linear(WIDTH, CLASSES))

def count(net, gradients):
    x = torch.randn(BATCH, TOKENS, WIDTH)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(gradients):
        net(x)
    return counter.get_total_flops()

def by_hand(ffn):
    """FLOPs of the classifier, of the linear layers with it, and of everything."""
    classifier = 2 * BATCH * TOKENS * WIDTH * CLASSES
    linear = classifier + LAYERS * 2 * BATCH * TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * ffn)
    return classifier, linear, linear + LAYERS * 4 * BATCH * TOKENS * TOKENS * WIDTH

warnings.simplefilter("error")
counts = {}
for heads, ffn in ((6, 240), (5, 180)):
    net = network(heads, ffn)
    counts[heads] = (count(net.train(), True), count(net.eval(), True), count(net.eval(), False))
    print(f"{heads} heads, FFN {ffn}: train {counts[heads][0]}, eval {counts[heads][1]},"
          f" eval and no_grad {counts[heads][2]}; by hand {by_hand(ffn)[2]}")
classifier, linear, everything = by_hand(240)
assert counts[6] == (everything, linear, classifier), "the encoder is now counted in another way"
assert counts[5][2] == by_hand(180)[1], "an odd number of heads is now counted in another way"
assert counts[5][2] > 100 * counts[6][2]
print("CONFIRMED: one encoder counts three ways, and the smaller one counts most")
PY
