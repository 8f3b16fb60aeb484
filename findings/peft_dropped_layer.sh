#!/usr/bin/env bash
# PEFT: an adapter of the whole network loads onto one with a layer dropped,
# without a word, and onto the wrong layers.
#
# Versions: peft 0.21.2, transformers 5.24.0, torch 2.13.0 (CPU), Python 3.11.
#
# guess: PeftModel.from_pretrained compares the adapter with the network. When
#        the network has a layer too many it warns, so it also warns when the
#        adapter has weights that no layer takes. An adapter of four layers on a
#        network of three is refused, or at least reported.
#
# Seen:  the check goes one way. A fifth layer, which the adapter lacks, brings a
#        warning, and a layer of another width an error. With a layer missing,
#        a quarter of the adapter is thrown away without an error, a warning or
#        a log line. Deleting a layer from a ModuleList renumbers those behind
#        it, so they take the adapters of other layers: the layer that was the
#        third gets what was trained for the second. Replacing the layer by an
#        Identity keeps the numbers; the other adapters are right then, and the
#        unused one is dropped just as silently.
#
# Output seen:
#   a layer more: warnings 1, log lines 0
#   a narrower layer: RuntimeError
#   layer 1 deleted: warnings 0, log lines 0, adapters of the layers left: [0, 1, 2], wanted [0, 2, 3]
#   layer 1 an Identity: warnings 0, log lines 0, adapters of the layers left: [0, 2, 3]
#
# Why it matters: people drop layers from a network and fit the old adapter to
#        it. It loads, it runs, and its quality is blamed on the pruning. Leave
#        an Identity where a layer was, or rename the keys of the adapter first.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 peft==0.21.2 transformers==5.24.0 numpy==2.2.6
cd "$work"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import logging
import warnings
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

lines = []

class Keep(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())

logging.getLogger().addHandler(Keep())
for name in ("peft", "transformers", "huggingface_hub"):
    logging.getLogger(name).addHandler(Keep())

class Block(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.up, self.down = nn.Linear(16, width), nn.Linear(width, 16)

    def forward(self, x):
        return x + self.down(self.up(x).relu())

class Network(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(layers)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

def network(layers=4):
    torch.manual_seed(0)
    return Network(layers).eval()

settings = LoraConfig(target_modules=["up", "down"], r=2, init_lora_weights=False)
whole = get_peft_model(network(), settings)
whole.save_pretrained("adapter")

def factors(model):
    layers = [b for b in model.base_model.model.layers if isinstance(b, Block)]
    return [b.up.lora_A["default"].weight for b in layers]

def load(name, base):
    lines.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, "adapter")
    model(torch.randn(2, 16))
    source = [next((i for i, f in enumerate(factors(whole)) if torch.equal(f, g)), None) for g in factors(model)]
    print(f"{name}: warnings {len(caught)}, log lines {len(lines)}, adapters of the layers left: {source}")
    return len(caught) + len(lines), source

assert load("the same network", network()) == (0, [0, 1, 2, 3])
assert load("a layer more", network(5)) == (1, [0, 1, 2, 3, None]), "a missing adapter is no longer reported"
narrow = network()
narrow.layers[1] = Block(24)
try:
    load("a narrower layer", narrow)
    raise SystemExit("a narrower layer no longer raises")
except RuntimeError as error:
    print(f"a narrower layer: {type(error).__name__}")
deleted = network()
del deleted.layers[1]
assert load("layer 1 deleted", deleted) == (0, [0, 1, 2]), "an unused adapter is now reported"
blank = network()
blank.layers[1] = nn.Identity()
assert load("layer 1 an Identity", blank) == (0, [0, 2, 3]), "an unused adapter is now reported"
print("CONFIRMED: an adapter with unused layers loads in silence, and onto the wrong layers")
PY
