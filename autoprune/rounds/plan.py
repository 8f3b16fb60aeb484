"""How the budgets and limits of a run are shared among its rounds, and what is refused before anything is searched."""

import math

from autoprune import live
from autoprune.assembly import Assembly
from autoprune.config import DEFAULT_TOKENS, SearchConfig
from autoprune.errors import UserError
from autoprune.level import GROUPS
from autoprune.ports.agent import load_agent
from autoprune.rounds_file import RoundsPlan
from autoprune.training.candidate import OWN_PASS
from autoprune.training.settings import settings_of

TRAINED = 2
"""Without `round_tokens`, 1 / TRAINED of the limit on tokens pays for training between rounds."""


def check_settings(config: SearchConfig) -> None:
    """Raise a UserError where a setting does not go with rounds."""
    if config.rounds == 1:
        if config.round_tokens is not None:
            raise UserError(
                f"round_tokens={config.round_tokens:,} is for the training between rounds, and there is one round: "
                "give --rounds 2 or more, or leave it."
            )
        return
    if config.forms != GROUPS:
        raise UserError(f"rounds are of levels that remove groups so far, and forms={config.forms}: leave --forms.")
    if load_agent(config.agent).masks:
        raise UserError(
            f"the agent {live.shown(config.agent)} keeps and removes single groups, and rounds are of levels: take an "
            "agent of levels, or leave --rounds."
        )
    if (config.workers or 1) > 1 or config.ray_address is not None:
        raise UserError("rounds are searched and trained in one process so far: leave --workers and --ray-address.")
    if config.device_memory is not None:
        raise UserError("rounds train the network, which needs all of it on the device: leave --device-memory.")


def plan_of(config: SearchConfig, assembly: Assembly) -> RoundsPlan:
    """The plan of a run.

    Args:
        config: of the run.
        assembly: of the dense network under the final budgets.

    Raises:
        UserError: the limits have no room for so many rounds, or there is too little to train on.
    """
    space, length = assembly.space, assembly.splits.search.shape[1]
    examples, between = assembly.task.training(assembly), config.rounds - 1
    settings = settings_of(examples.defaults, {"max_steps": 1})
    charged = OWN_PASS + (1 if settings.weight > 0 else 0)
    tokens = config.round_tokens or _tokens(config, length) // (TRAINED * between * charged)
    step = min(settings.batch, examples.count) * examples.tokens
    items = assembly.task.words.items
    if tokens < step:
        told, way = "", "raise it"
        if config.round_tokens is None:
            told = ", which is what the limits of the search leave for it,"
            way = "raise max_tokens or max_evals, or take fewer rounds"
        raise UserError(
            f"round_tokens={tokens:,}{told} is less than one step of training takes, {step:,} {items}: {way}."
        )
    limits = _limits(config, between * charged * tokens, length, len(assembly.splits.search) * length, items)
    shares = {metric: min(1.0, bound / space.cost(space.dense, metric)) for metric, bound in space.budgets.items()}
    return RoundsPlan(rounds=config.rounds, shares=shares, round_tokens=tokens, charged=charged, limits=limits)


def _tokens(config: SearchConfig, length: int) -> int:
    """The limit on tokens that all rounds have."""
    if config.max_tokens is not None:
        return config.max_tokens
    return DEFAULT_TOKENS if config.max_evals is None else config.max_evals * length


def _limits(config: SearchConfig, training: int, length: int, whole: int, items: str) -> dict[str, int | float | None]:
    """The limits of each search.

    Args:
        config: of the run.
        training: tokens that the training between all rounds is charged as.
        length: tokens of a sequence.
        whole: tokens of the search split.
        items: the word for what is counted.
    """
    found: dict[str, int | float | None] = {"max_evals": None, "max_tokens": None, "max_time": None}
    paid, rounds = f"The training between them is charged as {training:,} {items}", config.rounds
    if config.max_tokens is not None:
        found["max_tokens"] = each = (config.max_tokens - training) // rounds
        if each < whole:
            raise UserError(
                f"max_tokens={config.max_tokens:,} has no room for {rounds} rounds. {paid}, and {max(0, each):,} are "
                f"left for each search, which needs {whole:,} to score one policy on the whole search split. Raise "
                "max_tokens, or take fewer rounds or less --round-tokens."
            )
    if config.max_evals is not None:
        found["max_evals"] = each = (config.max_evals - math.ceil(training / length)) // rounds
        if each < 1:
            raise UserError(
                f"max_evals={config.max_evals:,} has no room for {rounds} rounds. {paid}, an evaluation for every "
                f"{length:,} of them: raise max_evals, or take fewer rounds or less --round-tokens."
            )
    if config.max_time is not None:
        found["max_time"] = config.max_time / rounds
    return found


def config_of(config: SearchConfig, plan: RoundsPlan, number: int) -> SearchConfig:
    """The configuration of a round before the last, which is a run of its own."""
    own = {"rounds": 1, "round_tokens": None, "storage": None, "study_name": None, "track": None}
    own["refit"] = False  # the training behind the search begins with one
    return config.model_copy(update=plan.limits | own | {"budgets": plan.shares_of(number)})
