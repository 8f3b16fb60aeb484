"""PPO in one file in the manner of CleanRL, on torch alone: a network with masks, and returns against their mean.

    python examples/14_cleanrl_style.py

Expect, in about a minute, the mean loss of each batch of episodes falling, and at the end the loss of the most likely
policy on all of the search split, below the uniform policy's.
"""

import argparse
from typing import Any

import torch
from torch import nn
from torch.distributions import Categorical

import autoprune

parser = argparse.ArgumentParser()
parser.add_argument("--tokens", type=int, default=80_000, help="policies x tokens scored")
arguments = parser.parse_args()

TOKENS, EPISODES, EPOCHS, CLIP = 256, 8, 10, 0.2  # read by a score; in a batch; over a batch; of PPO's ratio
env = autoprune.make_env(
    budgets={"params": 0.5}, actions="discrete", reward="amc", tokens=TOKENS, resample=True,
    reference="uniform",
    sequence_length=128, reconstruction_sequences=64, search_sequences=32, validation_sequences=32,
)  # fmt: skip
torch.manual_seed(0)
features, levels = env.observation_space.shape[0], int(env.action_space.n)
network = nn.Sequential(nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, levels))
with torch.no_grad():  # prefer the action in the middle, which keeps the pace of the uniform policy
    network[-1].bias.copy_(-0.5 * (torch.arange(levels) - levels // 2).square())
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)


def policy(observation: torch.Tensor, mask: torch.Tensor) -> Categorical:
    """Chances of the levels that the budget still allows."""
    return Categorical(logits=network(observation).masked_fill(~mask, -1e9))


def play(greedy: bool = False) -> tuple[list[tuple[torch.Tensor, ...]], float, dict[str, Any]]:
    """One episode: (observation, mask, action) of each step, the sum of rewards, and the policy and its loss."""
    observation, _ = env.reset()
    steps, total, done = [], 0.0, False
    while not done:
        seen, mask = torch.as_tensor(observation), torch.as_tensor(env.action_masks())
        with torch.no_grad():
            chances = policy(seen, mask)
            action = chances.probs.argmax() if greedy else chances.sample()
        observation, reward, done, _, info = env.step(action.item())
        steps.append((seen, mask, action))
        total += reward
    return steps, total, info


updates = arguments.tokens // TOKENS // EPISODES
for update in range(updates):
    optimizer.param_groups[0]["lr"] = 1e-2 * (1 - update / updates)  # annealed, so that the last steps are small
    episodes = [play() for _ in range(EPISODES)]
    steps = [step for steps, _, _ in episodes for step in steps]
    seen, mask, action = (torch.stack(parts) for parts in zip(*steps, strict=True))
    returns = torch.tensor([total for steps, total, _ in episodes for _ in steps])
    advantage = (returns - returns.mean()) / (returns.std() + 1e-6)
    with torch.no_grad():
        before = policy(seen, mask).log_prob(action)
    for _ in range(EPOCHS):
        ratio = (policy(seen, mask).log_prob(action) - before).exp()
        objective = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
        optimizer.zero_grad()
        (-objective).backward()
        optimizer.step()
    print(f"batch {update}: mean loss {sum(info['loss'] for _, _, info in episodes) / EPISODES:.4f}")

scores = env.rules.objective
uniform, learned = scores([scores.space.uniform(), play(greedy=True)[2]["levels"]])  # on all of the search split
print(f"uniform: loss {uniform:.4f}, learned: loss {learned:.4f}")
