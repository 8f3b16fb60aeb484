"""Makes an environment from a model, a text and budgets."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import SkipValidation

from autoprune import cautions, given_models
from autoprune.arguments import Budgets, checked
from autoprune.assembly import assemble
from autoprune.config import load_config
from autoprune.data.live import named
from autoprune.envs import sensitivity
from autoprune.envs.episodes import Actions, EpisodeRules
from autoprune.envs.pruning import PruningEnv
from autoprune.envs.rewards.options import load_reward
from autoprune.envs.rewards.record import Reward
from autoprune.errors import UserError
from autoprune.objective import Limits, Objective
from autoprune.space import Levels

SENSITIVITY_SEQUENCES = 1


@checked
def make_env(
    model: SkipValidation[Any] = None,
    data: SkipValidation[Any] = None,
    budgets: Budgets = None,
    actions: Actions = "discrete",
    reward: str | Reward = "amc",
    reward_options: dict[str, Any] | None = None,
    tokens: int | None = 2048,
    resample: bool = False,
    sensitivities: bool = True,
    reference: Literal["uniform", "additive"] | None = None,
    shaping: float = 0.0,
    observation: Literal["vector", "dict"] = "vector",
    render_mode: str | None = None,
    **settings: Any,
) -> PruningEnv:
    """Make the environment of a network. `gymnasium.make("autoprune/Pruning-v0", ...)` takes the same arguments.

    Args:
        model: Hugging Face directory, hub name or a live model; None is the embedded model.
        data: as in `autoprune.search`; None is Python's own documentation.
        budgets: as in `autoprune.search`: metric -> bound, or a bound of params; None is 0.5.
        actions: `discrete` for levels, `continuous` for a ratio, or `thresholds` on magnitudes, as PuRL has them.
        reward: a name from `autoprune list rewards`, `package.module:function`, `file.py:function`, or a function.
        reward_options: options of the reward, by name; None leaves all at their defaults.
        tokens: number of tokens that each score reads; None is the whole search split.
        resample: whether each episode reads other tokens, instead of the first of the split.
        sensitivities: whether to measure single-unit sensitivities first, for the observation. This takes three scores
            for each unit on one sequence.
        reference: the policy whose pace the neutral action keeps: the uniform one, or the one with the least sum of
            sensitivities.
        shaping: weight of the potential-based shaping from the sensitivities.
        observation: `vector` or `dict`.
        render_mode: `ansi` or None.
        settings: any other field of `SearchConfig`: levels, criterion, loss, sequence_length, device, ... and the
            `tokenizer` or `processor` of a live model.

    Raises:
        UserError: a setting, the model, the data, a budget or the reward is wrong.
    """
    if not sensitivities and (reference == "additive" or shaping):
        raise UserError(
            "reference='additive' and shaping are made of sensitivities, which sensitivities=False leaves out."
        )
    function = load_reward(reward, reward_options)
    data = named(data, settings.get("sequence_length"))
    own = given_models.with_model(settings | {"model": model, "data": data, "budgets": budgets})
    assembly = assemble(load_config(None, own))
    cautions.warn(assembly)
    evaluator = assembly.evaluator(assembly.splits.search, assembly.config.loss)
    objective = Objective(assembly.space, evaluator, Limits(), statistics=assembly.store.statistics)
    count = objective.sequences_for(tokens)

    def sample(rng: np.random.Generator) -> Sequence[int]:
        return sorted(int(s) for s in rng.choice(objective.n_sequences, count, replace=False)) if resample else first

    first = range(count)
    added_UL = sensitivity.measure(objective, range(SENSITIVITY_SEQUENCES)) if sensitivities else None
    policies: dict[str, Levels] = {"uniform": assembly.space.uniform()}
    if added_UL is not None:
        policies["additive"] = sensitivity.additive_solution(assembly.space, added_UL)
    chosen = None if reference is None else policies[reference]
    rules = EpisodeRules(objective, function, actions, sample, added_UL, chosen, shaping, observation)
    return PruningEnv(rules, render_mode)
