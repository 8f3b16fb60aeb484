"""AMC: DDPG with a terminal reward, half of the multiply-accumulates (He et al. 2018).

    python examples/12_amc.py

The reward `amc` pays once, when every unit is set. Expect, in about a minute, the losses of the dense network, of the
uniform policy and of the best policy found, which is below uniform's, and how fast each is on this machine.
"""

import argparse

import autoprune

parser = argparse.ArgumentParser()
parser.add_argument("--tokens", type=int, default=80_000, help="policies x tokens scored")
arguments = parser.parse_args()

result = autoprune.search(
    agent="ddpg",
    reward="amc",
    budgets={"macs": 0.5},
    max_tokens=arguments.tokens,
    agent_options={"tokens": 256, "race_tokens": 1024, "sensitivity_tokens": 128},
    sequence_length=128, reconstruction_sequences=64, search_sequences=32, validation_sequences=32,
)  # fmt: skip

for row in result.table:
    print(
        f"{row.name:>8}: loss {row.validation_loss:.4f}, {row.macs:,.0f} MACs a token, {row.tokens_per_second:,.0f}/s"
    )
