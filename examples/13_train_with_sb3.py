"""The environment with plain stable-baselines3, outside of our command line and agents.

    python examples/13_train_with_sb3.py

`gymnasium.make` gives an environment like any other: wrap it, train on it, keep the model as you are used to. The
budget holds whatever is chosen. Nothing limits the scores here (`LimitReached` ends only searches): `total_timesteps`
does. Expect, in about a minute, the policy that PPO ends with, and its loss on all of the search split, below the
uniform policy's.
"""

import argparse

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import autoprune  # noqa: F401 (registers the environment)

parser = argparse.ArgumentParser()
parser.add_argument("--tokens", type=int, default=80_000, help="policies x tokens scored")
arguments = parser.parse_args()

TOKENS = 256  # that a score reads
env = gymnasium.make(
    "autoprune/Pruning-v0",
    budgets={"params": 0.5},
    actions="continuous",
    reward="amc",
    reference="uniform",  # the action 0 keeps as much as the uniform policy, and training starts around it
    tokens=TOKENS,
    resample=True,  # other tokens in each episode
    sequence_length=128, reconstruction_sequences=64, search_sequences=32, validation_sequences=32,
)  # fmt: skip
objective = env.unwrapped.rules.objective
units = objective.space.units

model = PPO(
    "MlpPolicy", DummyVecEnv([lambda: Monitor(env)]), seed=0, learning_rate=3e-3, gamma=1.0, gae_lambda=1.0,
    n_steps=8 * len(units), batch_size=8 * len(units), policy_kwargs={"log_std_init": -1.5}, device="cpu",
)  # fmt: skip
model.learn(total_timesteps=arguments.tokens // TOKENS * len(units))

observation, _ = env.reset()
done = False
while not done:
    action, _ = model.predict(observation, deterministic=True)
    observation, _, done, _, info = env.step(action)
for unit, level in zip(units, info["levels"], strict=True):
    print(f"{unit.name:>12} keeps {unit.levels[level].kept:>3} of {unit.groups}")
uniform, learned = objective([objective.space.uniform(), info["levels"]])  # on all of the search split
print(f"uniform: loss {uniform:.4f}, ppo: loss {learned:.4f}")
