r"""A reward of one's own: pays for every nat that is saved, and fines units that are cut to less than a quarter.

    autoprune search --agent ppo --reward examples/06_own_reward.py:my_reward --max-tokens 100000 sequence_length=128 \
        reconstruction_sequences=64 search_sequences=32 validation_sequences=32 agent_options.sensitivity_tokens=0 \
        agent_options.episodes=4 agent_options.tokens=128 agent_options.race_tokens=1024
    python examples/06_own_reward.py

Both do the same; the second from Python. A reward is a function of a `RewardRecord` (envs/rewards/record.py lists its
fields). It is called at the end of an episode or, with `every_step`, after every unit, which costs a score for each.

The agent learns from the reward: it decides what is proposed. Which of the proposals is the answer is decided by the
loss alone, so a fine makes thin units unattractive and forbids nothing. `sensitivity_tokens=0` starts the search from
the uniform policy; it would otherwise start from one that knows nothing of the fine. Expect, in about a minute, a loss
below uniform's, and no or few thin units.
"""

import argparse

import autoprune
from autoprune.envs.rewards import RewardRecord, every_step


@every_step
def my_reward(record: RewardRecord) -> float:
    """Nats per token saved by this step (a minus where they are lost), less 0.1 for a unit thinner than a quarter."""
    saved = record.previous_loss - record.loss
    fine = 0.1 if record.kept < 0.25 else 0.0
    return saved - fine


def main() -> None:
    """Search with the reward, and count thin units."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=100_000, help="policies x tokens scored")
    arguments = parser.parse_args()
    result = autoprune.search(
        agent="ppo",
        reward=f"{__file__}:my_reward",
        budgets={"params": 0.5},
        max_tokens=arguments.tokens,
        agent_options={"episodes": 4, "tokens": 128, "race_tokens": 1024, "sensitivity_tokens": 0},
        sequence_length=128, reconstruction_sequences=64, search_sequences=32, validation_sequences=32,
    )  # fmt: skip
    for row in result.table:
        print(f"{row.name:>8}: loss {row.validation_loss:.4f}, {row.params:,} parameters")
    thin = [unit.name for unit in result.policy.units if unit.kept < unit.groups / 4]
    print(f"thinner than a quarter: {', '.join(thin) or 'none'}")


if __name__ == "__main__":  # the search imports this file to find the reward
    main()
