"""PuRL: DQN with a dense reward (Gupta et al. 2020).

    python examples/11_purl.py

The reward `purl` pays after every unit, from the network pruned so far, and not only at the end of an episode: an
episode teaches more, and costs as many scores as there are units. Expect, in about a minute, the losses of the dense
network, of the uniform policy and of the best policy found, which is below uniform's, and a run in `runs/` for
`autoprune show` and `autoprune export`. The run holds the trained agent too: as `model.zip` for stable-baselines3, and
as `agent.safetensors`, from which a search with `pretrained=` starts.
"""

import argparse

import autoprune

parser = argparse.ArgumentParser()
parser.add_argument("--tokens", type=int, default=80_000, help="policies x tokens scored")
arguments = parser.parse_args()

# An episode costs 16 scores, so each of them reads little: one sequence of 128 tokens.
result = autoprune.search(
    agent="dqn",
    reward="purl",
    budgets={"params": 0.5},
    max_tokens=arguments.tokens,
    agent_options={"episodes": 4, "tokens": 128, "race_tokens": 1024, "sensitivity_tokens": 128},
    sequence_length=128, reconstruction_sequences=64, search_sequences=32, validation_sequences=32,
)  # fmt: skip

for row in result.table:
    print(f"{row.name:>8}: loss {row.validation_loss:.4f}, perplexity {row.perplexity:.1f}, {row.params:,} parameters")
print(f"run: {result.path}")
