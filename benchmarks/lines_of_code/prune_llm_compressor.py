"""Prune every layer by half, with calibration data and without a search, and save the network: with llm-compressor.

Half of the single weights become zero. The network has the same shapes, parameters and speed as before.
"""

from pathlib import Path

from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/model")
tokenizer = AutoTokenizer.from_pretrained("path/to/model")
tokens = tokenizer(Path("text.txt").read_text(), return_tensors="pt").input_ids[0]
samples = Dataset.from_dict({"input_ids": tokens[: 64 * 128].view(64, 128).tolist()})
recipe = SparseGPTModifier(sparsity=0.5, targets=["Linear"], ignore=["re:.*lm_head"])
oneshot(model=model, dataset=samples, recipe=recipe, max_seq_length=128, num_calibration_samples=64)
model.save_pretrained("half")
tokenizer.save_pretrained("half")
