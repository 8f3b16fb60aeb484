"""A network that reads images: a third of a small residual network's multiply-accumulates, then the smaller module.

    python examples/02_image_network.py

The network is the embedded `tiny-cnn` and the images are scikit-learn's digits. A network of your own is a function
without arguments that returns the trained module: `model="my_net.py:make"`, with `data="images.npz"` or a folder.

Expect, in about twenty seconds, accuracies of the dense network, of the uniform policy and of the best policy found,
which is above uniform's; then the exported module, loaded by the loader that lies beside its weights, which needs
neither autoprune nor a search.
"""

import argparse
import importlib.util

import torch

import autoprune
from autoprune.models.tiny_cnn import TinyCNN

parser = argparse.ArgumentParser()
parser.add_argument("--tokens", type=int, default=60_000, help="policies x images scored")
arguments = parser.parse_args()

result = autoprune.search(model="tiny-cnn", budgets={"macs": 0.33}, max_tokens=arguments.tokens)
for row in result.table:
    print(f"{row.name:>8}: loss {row.validation_loss:.4f}, accuracy {row.accuracy:.1%}, {row.macs:,.0f} MACs an image")

directory = result.export(result.path / "smaller")
spec = importlib.util.spec_from_file_location("load_module", directory / "load_module.py")
assert spec is not None
assert spec.loader is not None
loader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loader)
network = loader.load(TinyCNN(), directory)  # the dense module, whose weights do not matter: it is cut and filled
logits = network(torch.zeros(1, 1, 8, 8))
count = sum(parameter.numel() for parameter in network.parameters())
print(f"{directory}: {count:,} parameters, {logits.shape[1]} classes")
