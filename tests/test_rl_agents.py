"""The agents on stable-baselines3: that they learn, what they leave behind, and what they start from."""

import functools
import itertools
import json
import random
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from autoprune import registry
from autoprune.agents.decay import Decay
from autoprune.agents.racing import PATIENCE
from autoprune.agents.replay import DecayingNoise, ReturnBuffer
from autoprune.agents.sb3 import Sb3Agent
from autoprune.envs.episodes import Episodes
from autoprune.envs.observation import NAMES
from autoprune.errors import LimitReached, UserError
from autoprune.objective import Limits, Objective
from autoprune.space import Levels, SearchSpace
from autoprune.testing.toys import ToyScorer, toy_space

AGENTS = ("ppo", "maskable-ppo", "dqn", "ddpg", "td3", "sac")
OFF_POLICY = ("dqn", "ddpg", "td3", "sac")
ONE = ToyScorer.tokens_per_sequence
BLIND = {"tokens": ONE, "race_tokens": ONE, "widening": 0.0, "sensitivity_tokens": 0}
"""One sequence at a time of a toy without noise, and nothing known beforehand."""

SMALL = BLIND | {"episodes": 4, "net_arch": (16,)}


def made(name: str, **options: Any) -> Sb3Agent:
    """An agent for a few batches on a toy."""
    if name == "maskable-ppo":
        pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    few = {"gradient_steps": 4, "batch_size": 32} if name in OFF_POLICY else {"epochs": 2}
    agent: Sb3Agent = registry.load("agents", name)(**SMALL | few | options)
    return agent


def toy(units: int = 5, levels: int = 5, seed: int = 2) -> ToyScorer:
    """A toy without noise."""
    return ToyScorer(toy_space(units, levels, seed=seed), seed=seed, noise=0)


def searched(agent: Sb3Agent, seed: int = 0, evals: int | None = 40, scorer: ToyScorer | None = None) -> Objective:
    """A search on a toy without noise."""
    scorer = scorer or toy()
    objective = Objective(scorer.space, scorer, Limits(evals=evals))
    with suppress(LimitReached):
        agent.search(objective, np.random.default_rng(seed))
    return objective


def trained(agent: Sb3Agent) -> BaseAlgorithm:
    assert agent._trained is not None
    return agent._trained


def choice(model: BaseAlgorithm) -> Levels:
    """What a model chooses without noise."""
    env: Any = model.get_env()
    episodes = Episodes(env.episodes.rules)
    while not episodes.walk.done:
        episodes.choose(model.predict(episodes.observe(), deterministic=True)[0])
    return episodes.walk.policies()[0]


# -- learning --------------------------------------------------------------------------------------------------------

STEPS = {"ppo": 1500, "maskable-ppo": 1500, "dqn": 2000, "ddpg": 1500, "td3": 1500, "sac": 2000}
LEARNING = {
    "ppo": {"episodes": 16, "epochs": 10, "log_std": -0.7},
    "maskable-ppo": {"episodes": 16, "epochs": 5, "spread": 1.5},
    "dqn": {"episodes": 16, "gradient_steps": 30, "batch_size": 64, "exploration": 0.5},
    "ddpg": {"episodes": 8, "gradient_steps": 30, "batch_size": 64, "noise": 0.6},
    "td3": {"episodes": 8, "gradient_steps": 30, "batch_size": 64, "noise": 0.6},
    "sac": {"episodes": 16, "gradient_steps": 20, "batch_size": 64, "log_std": -0.5, "learning_rate": 3e-3},
}
"""More exploration than the defaults, which start from what sensitivities say."""


class Watch(BaseCallback):
    """Notes what is chosen before anything is learned, and ends training after so many environment steps."""

    before: ClassVar[list[Levels]] = []
    steps: ClassVar[int] = 2000

    def _on_training_start(self) -> None:
        self.before.append(choice(self.model))

    def _on_step(self) -> bool:
        return self.num_timesteps < self.steps


def returned(scorer: ToyScorer, policy: Levels) -> float:
    """Return of a policy: 0 is as uniform, 1 the optimum."""
    uniform, best = scorer.true_loss(scorer.space.uniform()), optimum(len(scorer.space.units), scorer.seed)
    return (uniform - scorer.true_loss(policy)) / (uniform - best)


@functools.cache
def optimum(units: int, seed: int) -> float:
    """The lowest loss on a toy, of all policies that there are."""
    scorer = toy(units, seed=seed)
    policies = filter(scorer.space.feasible, itertools.product(range(5), repeat=units))
    return min(scorer.true_loss(policy) for policy in policies)


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_learns_from_nothing_but_rewards_within_2000_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer alone could be luck: the best of 300 random policies is as good. What the agent chooses could not."""
    answers, before, after = [], [], []
    monkeypatch.setattr(Watch, "steps", STEPS[name])
    for seed in range(5):
        Watch.before.clear()
        agent = made(name, **BLIND | {"net_arch": (64, 64)} | LEARNING[name], callback=f"{__name__}:Watch")
        scorer = toy()
        objective = searched(agent, seed, evals=400, scorer=scorer)
        assert trained(agent).num_timesteps <= STEPS[name] + 16
        answers.append(returned(scorer, objective.best))
        before.append(returned(scorer, Watch.before[0]))
        after.append(returned(scorer, choice(trained(agent))))
    assert min(answers) >= 0.95, answers
    assert np.mean(before) < 0.3, before
    assert np.mean(after) >= 0.95, after
    assert min(after) > 0.7, after


@pytest.mark.parametrize("name", AGENTS)
def test_without_a_learning_rate_nothing_is_learned(name: str) -> None:
    Watch.before.clear()
    agent = made(name, learning_rate=0.0, callback=f"{__name__}:Watch")
    searched(agent, evals=60)
    assert trained(agent).num_timesteps > 100
    assert choice(trained(agent)) == Watch.before[0]


@pytest.mark.parametrize("name", AGENTS)
def test_the_first_choice_is_the_reference(name: str) -> None:
    """Training starts from the best under the sum of the sensitivities: the first network hardly departs from it."""
    Watch.before.clear()
    options = {"preference": 5.0} if name == "dqn" else {}  # whose first values differ by chance
    agent = made(name, sensitivity_tokens=ONE, callback=f"{__name__}:Watch", **options)
    objective = searched(agent, evals=80)
    env: Any = trained(agent).get_env()
    reference = env.episodes.rules.reference
    assert reference != objective.space.uniform()
    costs = [objective.space.cost(policy, "params") for policy in (Watch.before[0], reference)]
    assert costs[0] == pytest.approx(costs[1], rel=0.1)
    assert np.abs(np.subtract(Watch.before[0], reference)).max() <= 1


@pytest.mark.parametrize("name", AGENTS)
def test_a_search_without_limits_ends_when_nothing_new_is_proposed(name: str) -> None:
    objective = searched(made(name), evals=None, scorer=toy(units=2, levels=2))
    assert objective.best == (0, 1)
    assert objective.spent.evals < PATIENCE


def test_sensitivities_are_measured_where_they_leave_a_quarter_of_the_limits() -> None:
    for limits, expected in [
        (Limits(evals=19), False),
        (Limits(evals=20), True),
        (Limits(tokens=19 * ONE), False),
        (Limits(tokens=20 * ONE), True),
    ]:
        agent, scorer = made("ppo", sensitivity_tokens=ONE), toy()  # 15 scores
        with suppress(LimitReached):
            agent.search(Objective(scorer.space, scorer, limits), np.random.default_rng(0))
        env: Any = trained(agent).get_env()
        assert (env.episodes.rules.added_UL is not None) == expected, limits


def test_rates_fall_with_what_is_spent() -> None:
    agent = made("ddpg", learning_rate=0.01, noise=0.5)
    objective = searched(agent, evals=60)
    assert 0.5 < objective.progress <= 1
    rate, noise = agent.decays
    assert (rate.start, noise.start) == (0.01, 0.5)
    assert 0.5 < rate.progress == noise.progress <= objective.progress
    assert rate(1.0) == pytest.approx(0.01 * (1 - rate.progress))


# -- what goes on outside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_the_processs_randomness_is_left_as_it_was(name: str) -> None:
    random.seed(11)
    np.random.seed(12)
    torch.manual_seed(13)
    state = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    searched(made(name))
    assert random.getstate() == state[0]
    assert np.array_equal(np.random.get_state()[1], state[1][1])
    assert np.random.get_state()[2:] == state[1][2:]
    assert torch.equal(torch.random.get_rng_state(), state[2])


COUNTING = """
from stable_baselines3.common.callbacks import BaseCallback

calls = []

class Counting(BaseCallback):
    def _on_training_start(self):
        calls.append("start")

    def _on_step(self):
        calls.append(self.num_timesteps)
        return True

    def _on_training_end(self):
        calls.append("end")
"""


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_a_callback_from_a_file_is_called_as_sb3_does(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COUNTING)
    agent = made(name, callback=f"{tmp_path}/mine.py:Counting")
    searched(agent)
    calls = registry.load("callbacks", f"{tmp_path}/mine.py:calls")
    assert calls[0] == "start"
    assert calls[-1] == "end"
    assert calls[1:-1] == list(range(4, 4 * len(calls[1:-1]) + 1, 4)), "once for each step of four environments"
    assert len(calls) > 20


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_an_event_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    searched(made("ppo", tensorboard=str(tmp_path / "logs")))
    (event,) = (tmp_path / "logs").glob("PPO_1/events.out.tfevents.*")
    assert b"rollout/ep_rew_mean" in event.read_bytes()


def test_settings_that_sb3_refuses_are_a_users_mistake() -> None:
    for options in ({"no_such": 3}, {"clip_range": -1.0, "batch_size": 1}):
        with pytest.raises(UserError, match=r"PPO of stable-baselines3 failed .*options="):
            searched(made("ppo", options=options))


# -- saved and read back ---------------------------------------------------------------------------------------------


def saved(agent: Sb3Agent, directory: Path) -> Path:
    directory.mkdir(parents=True)
    agent.save(directory)
    return directory


def loader(name: str) -> Any:
    """The class that stable-baselines3's own users load with."""
    if name == "maskable-ppo":
        return pytest.importorskip("sb3_contrib", reason="needs sb3-contrib").MaskablePPO
    return getattr(stable_baselines3, name.upper())


@pytest.mark.parametrize("name", AGENTS)
def test_sb3_loads_what_is_saved_and_it_chooses_alike(name: str, tmp_path: Path) -> None:
    agent = made(name)
    searched(agent)
    run = saved(agent, tmp_path / "run")
    assert sorted(path.name for path in run.iterdir()) == ["agent.safetensors", "model.zip"]
    model, again = trained(agent), loader(name).load(run / "model.zip")
    rng = np.random.default_rng(0)
    observed_NF = rng.uniform(0, 1, (32, *model.observation_space.shape)).astype(np.float32)  # type: ignore[misc]
    chosen = [m.predict(observed_NF, deterministic=True)[0] for m in (model, again)]
    assert np.array_equal(*chosen)
    tensors = load_file(run / "agent.safetensors")
    state = again.policy.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], state[key]) for key in state)


@pytest.mark.parametrize("name", AGENTS)
def test_two_seeded_searches_save_equal_weights(name: str, tmp_path: Path) -> None:
    files = []
    for seed in (3, 3, 4):
        agent = made(name)
        searched(agent, seed)
        files.append(load_file(saved(agent, tmp_path / str(len(files))) / "agent.safetensors"))
    first, second, other = files
    assert all(torch.equal(first[key], second[key]) for key in first | second)
    assert any(not torch.equal(first[key], other[key]) for key in first)


class First(BaseCallback):
    """Notes weights and choice before anything is learned, and ends training."""

    weights: ClassVar[list[dict[str, torch.Tensor]]] = []
    chosen: ClassVar[list[Levels]] = []

    def _on_training_start(self) -> None:
        self.weights.append({key: value.clone() for key, value in self.model.policy.state_dict().items()})
        self.chosen.append(choice(self.model))

    def _on_step(self) -> bool:
        return False


@pytest.mark.parametrize("name", AGENTS)
def test_training_starts_from_pretrained_weights(name: str, tmp_path: Path) -> None:
    first = made(name)
    searched(first)
    run = saved(first, tmp_path / "run")
    tensors = load_file(run / "agent.safetensors")
    generator = torch.Generator().manual_seed(5)
    tensors = {key: torch.randn(value.shape, generator=generator) for key, value in tensors.items()}
    save_file(tensors, run / "agent.safetensors", {"algorithm": type(first).__name__, "observation": header(run)})
    First.weights.clear()
    First.chosen.clear()
    for pretrained in (None, str(run), str(run / "agent.safetensors")):
        searched(made(name, pretrained=pretrained, callback=f"{__name__}:First"), seed=9)
    plain, *loaded = First.weights
    assert all(torch.equal(each[key], tensors[key]) for each in loaded for key in tensors)
    assert any(not torch.equal(plain[key], tensors[key]) for key in tensors)
    assert First.chosen[0] != First.chosen[1] == First.chosen[2]


def header(run: Path) -> str:
    from safetensors import safe_open

    with safe_open(run / "agent.safetensors", framework="pt") as opened:
        return str(opened.metadata()["observation"])


@pytest.fixture(scope="module")
def ppo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a trained PPO."""
    agent = made("ppo")
    searched(agent)
    return saved(agent, tmp_path_factory.mktemp("runs") / "ppo")


def test_pretrained_weights_of_another_algorithm_are_refused(ppo_run: Path) -> None:
    with pytest.raises(UserError, match=r"agent\.safetensors' is of PPO, and this search is of SAC\.$"):
        searched(made("sac", pretrained=str(ppo_run)))


def test_pretrained_weights_of_another_shape_are_refused(ppo_run: Path) -> None:
    with pytest.raises(UserError, match=r"does not fit: .*\(.*16\) there and \(.*24\) here; use the net_arch"):
        searched(made("ppo", pretrained=str(ppo_run), net_arch=(24,)))
    with pytest.raises(UserError, match=r"does not fit: .* is None there and \(16,\) here"):
        searched(made("ppo", pretrained=str(ppo_run), net_arch=(16, 16)))


def test_pretrained_weights_of_another_table_are_refused(ppo_run: Path, tmp_path: Path) -> None:
    tensors = load_file(ppo_run / "agent.safetensors")
    save_file(tensors, tmp_path / "agent.safetensors", {"algorithm": "PPO", "observation": '["position"]'})
    with pytest.raises(UserError, match="observed another table"):
        searched(made("ppo", pretrained=str(tmp_path)))
    save_file(tensors, tmp_path / "agent.safetensors")
    with pytest.raises(UserError, match="is of None, and this search is of PPO"):
        searched(made("ppo", pretrained=str(tmp_path)))


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_survives_kinds_of_units_that_it_has_not_seen(name: str, tmp_path: Path) -> None:
    first = made(name)
    searched(first)
    run = saved(first, tmp_path / "run")
    known = toy()
    units = [replace(unit, kind=kind) for unit, kind in zip(known.space.units, itertools.cycle(["conv", "expert"]))]
    space = SearchSpace(units, {"params": known.space.costs["params"].tolist()}, known.space.budgets)
    second = made(name, pretrained=str(run))
    assert searched(second, scorer=ToyScorer(space, seed=2, noise=0)).archive()


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_survives_columns_that_the_table_got_since(name: str, tmp_path: Path) -> None:
    """As another kind of unit brings: an agent of before chooses as if they were always 0."""
    first = made(name)
    searched(first)
    run = saved(first, tmp_path / "run")
    later = ["depth", "mlp", "pace"]
    at, left = [NAMES.index(one) for one in later], [one for one in NAMES if one not in later]
    tensors = {key: value.clone() for key, value in load_file(run / "agent.safetensors").items()}
    reading = [key for key, value in tensors.items() if value.dim() == 2 and value.shape[1] >= len(NAMES)]
    assert reading
    for key in reading:
        tensors[key][:, at] = 0
    columns = {key: [i for i in range(tensors[key].shape[1]) if i not in at] for key in reading}
    older = tensors | {key: tensors[key][:, columns[key]].contiguous() for key in reading}
    save_file(older, run / "agent.safetensors", {"algorithm": type(first).__name__, "observation": json.dumps(left)})
    First.weights.clear()
    searched(made(name, pretrained=str(run), callback=f"{__name__}:First"))
    assert all(torch.equal(First.weights[0][key], tensor) for key, tensor in tensors.items())


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_damaged_pretrained_weights_are_refused(ppo_run: Path, tmp_path: Path, length: int) -> None:
    run = Path(shutil.copytree(ppo_run, tmp_path / "run"))
    file = run / "agent.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(UserError, match=r"agent\.safetensors' is damaged"):
        searched(made("ppo", pretrained=str(run)))


def test_missing_pretrained_weights_are_refused_before_anything_is_computed(ppo_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(ppo_run, tmp_path / "run"))
    (run / "agent.safetensors").unlink()
    for path in (run, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no trained agent at '.*(run/agent\.safetensors|nowhere)': --pretrained"):
            made("ppo", pretrained=str(path))


def test_an_agent_that_cannot_be_written_is_a_users_mistake(ppo_run: Path, tmp_path: Path) -> None:
    agent = made("ppo")
    searched(agent)
    with pytest.raises(UserError, match="the trained agent could not be written to"):
        agent.save(tmp_path / "nowhere")


# -- the parts of off-policy agents ----------------------------------------------------------------------------------


def stored(rewards_TN: np.ndarray) -> ReturnBuffer:
    """A buffer after an episode of two environments with these rewards."""
    box = spaces.Box(0, 9, (1,), np.float32)
    buffer = ReturnBuffer(16, box, spaces.Box(-1, 1, (1,), np.float32), n_envs=2, handle_timeout_termination=False)
    for t, reward_N in enumerate(rewards_TN):
        observed_N1, done_N = np.full((2, 1), t, dtype=np.float32), np.full(2, t == len(rewards_TN) - 1)
        assert buffer.size() == 0, "an episode is held back until it ends"
        buffer.add(observed_N1, observed_N1 + 1, np.full((2, 1), t / 10), reward_N, done_N, [{}, {}])
    return buffer


def test_a_step_is_stored_with_all_that_follows_and_as_if_the_episode_ended() -> None:
    buffer = stored(np.array([[1.0, 0.0], [2.0, 0.0], [4.0, -3.0]]))
    assert buffer.size() == 3
    for row in range(3):
        step = int(buffer.observations[row, 0, 0])
        assert buffer.rewards[row].tolist() == [[7.0, -3.0], [6.0, -3.0], [4.0, -3.0]][step]
        assert buffer.actions[row, 0, 0] == pytest.approx(step / 10)
        assert buffer.next_observations[row, 1, 0] == step + 1
    assert np.all(buffer.dones[:3] == 1)


def test_a_terminal_reward_is_copied_to_every_step_as_amc_does() -> None:
    buffer = stored(np.array([[0.0, 0.0]] * 3 + [[-1.5, -0.5]]))
    assert buffer.rewards[:4].tolist() == [[-1.5, -0.5]] * 4


def test_noise_shrinks_with_the_search_and_is_shared_by_all_environments() -> None:
    import copy

    decay = Decay(0.5)
    noise = DecayingNoise(decay)
    np.random.seed(0)
    wide = np.array([noise() for _ in range(2000)])
    decay.progress = 0.9
    narrow = np.array([noise() for _ in range(2000)])
    assert (wide.std(), narrow.std()) == pytest.approx((0.5, 0.05), rel=0.1)
    assert copy.deepcopy(noise) is noise
    decay.progress = 1.0
    assert noise() == 0
