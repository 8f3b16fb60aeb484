#!/usr/bin/env bash
# torch-pruning: with round_to, asking for more pruning can prune nothing at all.
#
# Versions: torch-pruning 1.6.1, torch 2.13.0 (CPU), Python 3.11.
#
# guess: round_to=64 moves a target width to a nearby multiple of 64, never
#        above the wanted width by more than 63, and a higher pruning ratio
#        never keeps more channels than a lower one.
#
# Seen:  the kept width is rounded down. When that reaches 0, the layer is left
#        whole, without an error or a warning. So on a layer of 96 channels a
#        ratio of 0.3 keeps 64, and 0.4, 0.5 and 0.6 keep all 96. On 160
#        channels a ratio of 0.3 keeps 64, which is a true ratio of 0.6.
#        With global pruning the same rule leaves a whole network unpruned.
#
# Output seen (channels kept, round_to=64):
#   96 channels:  ratio 0.3 -> 64, 0.4 -> 96, 0.5 -> 96, 0.6 -> 96
#   160 channels: ratio 0.3 -> 64
#   global 0.5 over widths 96, 48, 64: without round_to [48, 22, 34], with 64 [96, 48, 64]
#   (the three widths without round_to depend on the random weights)
#
# Why it matters: people round widths so that GPUs run them well. Here the
#        narrow layers that a search prunes hardest come back at full width, and
#        a curve of quality against ratio is not about the ratios on its axis.
#        Always read the widths and the parameter count after step().
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torch-pruning==1.6.1 numpy==2.2.6
"$work/venv/bin/python" -W error::UserWarning - <<'PY'
import torch
from torch import nn
import torch_pruning as tp

def prune(net, head, ratio, **options):
    tp.pruner.MagnitudePruner(
        net, torch.randn(1, 3, 16, 16),
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio, ignored_layers=[head], **options).step()
    net(torch.randn(1, 3, 16, 16))
    return [m.out_channels for m in net if isinstance(m, nn.Conv2d)]

def stack(*widths):
    torch.manual_seed(0)
    layers, last = [], 3
    for width in widths:
        layers += [nn.Conv2d(last, width, 3), nn.ReLU()]
        last = width
    head = nn.Linear(last, 10)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), head

kept = {}
for width, ratio in ((96, .3), (96, .4), (96, .5), (96, .6), (160, .3)):
    kept[width, ratio] = prune(*stack(width), ratio, round_to=64)[0]
    print(f"{width} channels, ratio {ratio}, round_to 64: keeps {kept[width, ratio]}")
free = prune(*stack(96, 48, 64), .5, global_pruning=True)
rounded = prune(*stack(96, 48, 64), .5, global_pruning=True, round_to=64)
print("global ratio 0.5 over 96, 48, 64: without round_to", free, "with round_to 64", rounded)

assert kept[96, .3] == 64 and kept[160, .3] == 64
assert kept[96, .4] == kept[96, .5] == kept[96, .6] == 96, "a width rounded to 0 is now handled"
assert sum(free) < 120 and rounded == [96, 48, 64], "global pruning with round_to now prunes"
print("CONFIRMED: a higher ratio with round_to=64 keeps more channels than a lower one")
PY
