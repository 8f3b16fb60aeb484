#!/usr/bin/env bash
# optimum-quanto: a pruned layer can take more bytes than the whole one, after
# the same 4-bit quantisation.
#
# Versions: optimum-quanto 0.2.7, torch 2.13.0 (CPU), numpy 2.2.6, Python 3.11.
#
# guess: quantize(net, weights=qint4) gives every Linear the same number of bits
#        for each weight, whatever its width. So a layer that keeps 992 of its
#        1024 inputs takes 3 % fewer bytes, and one that keeps 800 takes 22 %
#        fewer. If the width does not fit the groups, there is a warning.
#
# Seen:  the number of weights that share a scale depends on the width, and
#        nothing is logged. 1024 inputs make groups of 128. For 992 or 800 the
#        only multiple of 32 that divides them (and is at most 128) is 32, so
#        each has four times as many scales for each weight: both layers are
#        larger than the layer before it was pruned. 1000 inputs, which no such
#        group divides, get one scale a row and are smaller than 992 inputs.
#        The order of the sizes by width is therefore not the order of widths.
#
# Output seen (bytes of the tensors of one layer with 1024 outputs):
#   inputs 1024: group 128, float32   589824 (100 %), bfloat16   557056 (100 %)
#   inputs 1000: group None, float32   520192 ( 88 %), bfloat16   516096 ( 93 %)
#   inputs  992: group  32, float32   761856 (129 %), bfloat16   634880 (114 %)
#   inputs  960: group  96, float32   573440 ( 97 %), bfloat16   532480 ( 96 %)
#   inputs  800: group  32, float32   614400 (104 %), bfloat16   512000 ( 92 %)
#   inputs  768: group 128, float32   442368 ( 75 %), bfloat16   417792 ( 75 %)
#
# Why it matters: pruners round the width of an FFN to a multiple of 32, which
#        is the very case that costs most. A search that minimises parameters
#        and quantises afterwards can end with a larger file than it began with.
#        Keep widths at multiples of 128, or measure the bytes after quantising.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 optimum-quanto==0.2.7 numpy==2.2.6
cd "$work"
venv/bin/python -W error::UserWarning - 2>quanto.log <<'PY'
import torch
from optimum.quanto import freeze, qint4, quantize
from torch import nn

def quantised(inputs, dtype):
    """Group size, and bytes of all tensors, of one quantised layer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(inputs, 1024, bias=False, dtype=dtype)).eval()
    quantize(net, weights=qint4)
    freeze(net)
    assert net(torch.randn(2, inputs, dtype=dtype)).isfinite().all()
    tensors = [t for t in net.state_dict().values() if t.dim() > 1]
    return net[0].weight_group_size, sum(t.numel() * t.element_size() for t in tensors)

taken, groups = {}, {}
for inputs in (1024, 1000, 992, 960, 800, 768):
    for dtype in (torch.float32, torch.bfloat16):
        groups[inputs], taken[inputs, dtype] = quantised(inputs, dtype)
    shown = [f"{str(d)[6:]} {taken[inputs, d]:8d} ({taken[inputs, d] / taken[1024, d]:4.0%})"
             for d in (torch.float32, torch.bfloat16)]
    print(f"inputs {inputs:4d}: group {groups[inputs]!s:>3}, {', '.join(shown)}")

def share(inputs, dtype=torch.float32):
    return taken[inputs, dtype] / taken[1024, dtype]

assert groups == {1024: 128, 1000: None, 992: 32, 960: 96, 800: 32, 768: 128}, "other groups are now chosen"
assert share(992) > 1.2 and share(992, torch.bfloat16) > 1.1, "992 inputs no longer take more than 1024"
assert share(800) > 1 and share(1000) < 0.95 and share(768) < 0.76
print("CONFIRMED: a layer pruned from 1024 to 992 or 800 inputs takes more bytes than before")
PY
if grep -i group "$work/quanto.log"; then echo "quanto now says something about groups"; exit 1; fi
