"""A first search: half of the embedded language model's parameters, then the smaller network in use.

    python examples/01_first_search.py

Expect, in about a minute, the losses of the dense network, of the uniform policy and of the best policy found, which is
below uniform's; what the policy keeps of every unit; and the exported network, loaded as any other, with its number of
parameters and a few words of its own (the embedded model has read Python's documentation).

For a network of your own give `model=` and `data=`, and leave the four sizes of the last line at their defaults.
"""

import argparse

from transformers import AutoModelForCausalLM, AutoTokenizer

import autoprune

parser = argparse.ArgumentParser()
parser.add_argument("--tokens", type=int, default=80_000, help="policies x tokens scored")
arguments = parser.parse_args()

result = autoprune.search(
    budgets={"params": 0.5},
    max_tokens=arguments.tokens,
    sequence_length=128, reconstruction_sequences=64, search_sequences=32, validation_sequences=32,
)  # fmt: skip

for row in result.table:
    print(f"{row.name:>8}: loss {row.validation_loss:.4f}, perplexity {row.perplexity:.1f}, {row.params:,} parameters")
for unit in result.policy.units:
    print(f"{unit.name:>12} keeps {unit.kept:>3} of {unit.groups}")

directory = result.export(result.path / "smaller")
model = AutoModelForCausalLM.from_pretrained(directory)  # `import autoprune` has made transformers know its type
tokenizer = AutoTokenizer.from_pretrained(directory)
prompt = tokenizer("Return a list of", return_tensors="pt")
words = model.generate(**prompt, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.eos_token_id)
print(f"{directory}: {model.num_parameters():,} parameters; {tokenizer.decode(words[0])!r}")
