"""Run in a fresh process: an exported ONNX graph as a user without torch would run it, and what was found.

    python check_onnx.py DIRECTORY REFERENCES

REFERENCES is a safetensors file of `input.N` and `logits.N`. Prints the largest difference for each N, as a share of
its largest logit, as a line of JSON.
"""

import json
import sys
from pathlib import Path

import onnxruntime
from safetensors.numpy import load_file

directory, references = map(Path, sys.argv[1:])
described = json.loads((directory / "config.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(directory / described["file"], providers=["CPUExecutionProvider"])
tensors = load_file(references)
found = []
for n in range(len(tensors) // 2):
    (entry,), (out,) = described["inputs"], described["outputs"]
    given = tensors[f"input.{n}"]
    assert str(given.dtype) == entry["dtype"]
    (logits,) = session.run([out["name"]], {entry["name"]: given})
    expected = tensors[f"logits.{n}"]
    assert logits.shape == expected.shape
    assert str(logits.dtype) == out["dtype"]
    sizes = dict(zip(entry["shape"], given.shape, strict=True))
    assert [sizes.get(size, size) for size in out["shape"]] == list(logits.shape)
    found.append(float(abs(logits - expected).max() / abs(expected).max()))
assert not {"torch", "transformers", "autoprune"} & set(sys.modules)
print(json.dumps(found))
