"""The pruning environment: one episode walks the units in order, one step sets one unit's level."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from autoprune.envs.episodes import EpisodeRules, Episodes
from autoprune.envs.observation import split
from autoprune.space import Levels


class PruningEnv(gymnasium.Env[Any, Any]):
    """Set the level of one unit after another within the budgets; the last step scores the policy.

    ## Observations

    `Box(float32)` of the table below, which describes the unit to be set next. With `observation="dict"` it is a `Dict`
    of the table's four groups. Numbers that depend on a network's scale are z-scores over the units, divided by 3 and
    clipped. So the table is finite for every model, and a trained agent can be used on another model.

    | index | name | meaning | unit | range | group |
    | --- | --- | --- | --- | --- | --- |
    | 0 | position | units before this one / units | share | 0 to 1 | layer |
    | 1 | depth | block / blocks | share | 0 to 1 | layer |
    | 2 | depth_sin_1 | sin of 2 pi x 1 x depth | - | -1 to 1 | layer |
    | 3 | depth_cos_1 | cos of 2 pi x 1 x depth | - | -1 to 1 | layer |
    | 4 | depth_sin_2 | sin of 2 pi x 2 x depth | - | -1 to 1 | layer |
    | 5 | depth_cos_2 | cos of 2 pi x 2 x depth | - | -1 to 1 | layer |
    | 6 | depth_sin_4 | sin of 2 pi x 4 x depth | - | -1 to 1 | layer |
    | 7 | depth_cos_4 | cos of 2 pi x 4 x depth | - | -1 to 1 | layer |
    | 8 | attention | the unit is an attention | 0 or 1 | 0 to 1 | layer |
    | 9 | mlp | the unit is an MLP | 0 or 1 | 0 to 1 | layer |
    | 10 | groups | log2 of its groups / 20 | share | 0 to 1 | layer |
    | 11 | group_params | log2 of the parameters of one group / 30 | share | 0 to 1 | layer |
    | 12 | levels | its levels / levels of the unit that has most | share | 0 to 1 | layer |
    | 13 | params_share | its share of all units' parameters | share | 0 to 1 | layer |
    | 14 | macs_share | its share of all units' MACs | share | 0 to 1 | layer |
    | 15 | weight_norm | root mean square of its weights | z-score of log / 3 | -1 to 1 | layer |
    | 16 | weight_spread | spread of its groups' norms | z-score / 3 | -1 to 1 | layer |
    | 17 | weight_kurtosis | kurtosis of its weights | z-score of log / 3 | -1 to 1 | layer |
    | 18 | pq_index | PQ-index of its groups' norms (compressibility) | index | 0 to 1 | layer |
    | 19 | activation_norm | root mean square of the consumer's inputs | z-score of log / 3 | -1 to 1 | layer |
    | 20 | activation_rank | participation ratio of these inputs | share | 0 to 1 | layer |
    | 21 | error_75 | output error of the consumer with 3/4 kept | share | 0 to 1 | layer |
    | 22 | error_50 | with 1/2 kept | share | 0 to 1 | layer |
    | 23 | error_25 | with 1/4 kept | share | 0 to 1 | layer |
    | 24 | sensitivity_1 | loss that level 1/3 of this unit alone adds | z-score of log / 3 | -1 to 1 | sensitivity |
    | 25 | sensitivity_2 | loss that level 2/3 of this unit alone adds | z-score of log / 3 | -1 to 1 | sensitivity |
    | 26 | sensitivity_3 | loss that level 3/3 of this unit alone adds | z-score of log / 3 | -1 to 1 | sensitivity |
    | 27 | reference | share that the reference policy keeps of it | share | 0 to 1 | sensitivity |
    | 28 | used | budget spent by the units set, most of any metric | share of budget | 0 to 1 | budget |
    | 29 | room | budget that it may use at most, least of any metric | share of budget | 0 to 1 | budget |
    | 30 | to_come | cost of it and the units to come if dense | share of dense | 0 to 1 | budget |
    | 31 | pace | common share of all units to come that would meet the budget | share | 0 to 1 | budget |
    | 32 | sparsest | least it may keep now | share | 0 to 1 | budget |
    | 33 | densest | most it may keep now | share | 0 to 1 | budget |
    | 34 | previous | share that the previous step kept; 1 at the first | share | 0 to 1 | episode |
    | 35 | loss | loss so far over dense / (4 x uniform over dense), if paid at every step | share | 0 to 1 | episode |

    Weight statistics, activations and output errors are of the dense network on the reconstruction split
    (`UnitStatistics` has their formulas and sources); sensitivities are measured once on a few tokens of the search
    split.

    ## Actions

    - `discrete`, `Discrete(L)`: the level; 0 is dense. With a `reference`, L // 2 is the level at its pace, and each
      action above or below is one level sparser or denser. `action_masks()` marks the actions whose level exists and
      leaves enough of each budget for the sparsest levels of the remaining units.
    - `continuous`, `Box(-1, 1, (1,))`: -1 keeps nothing, 1 everything, and values between are linear. With a
      `reference`, 0 keeps its pace. The nearest allowed level is taken.
    - `thresholds`, `Discrete(T)`: action k removes weights up to k tenths of the standard deviation of the unit's
      weights (thresholds.py); the level of the nearest density is taken. All actions are allowed, and the budgets hold
      at the end alone: the finished policy is repaired before it is scored.

    The pace of a reference policy is its share of the unit, scaled by a factor. With the same factor for all remaining
    units, the policy would meet the budgets exactly (`Walk.ratios`).

    A level that is not allowed is replaced by the nearest allowed one, so that the budgets hold for all actions. What
    is left of the budgets at the end is filled (`SearchSpace.repair`). An action outside the space raises
    `InvalidAction`.

    ## Rewards

    A reward is a function of a `RewardRecord`: built-in (`amc`, `loss`, `purl`, `purl-end`, `rewarded-meta`) or the
    user's own. A terminal reward is paid at the last step. A reward marked `every_step` is paid at each step, for the
    policy so far with the remaining units dense. With `shaping`, Phi(s') - Phi(s) is added at each step. Phi is minus
    the additive estimate of the loss so far, and 0 at the end. The sum over an episode is 0, so the best policy stays
    the best. Episodes are undiscounted (gamma = 1).

    ## Episode

    An episode starts with no unit set, terminates when every unit is set, and is never truncated. `info` of the last
    step has `levels` (the policy) and `loss`. The objective's `LimitReached` passes through `step`, because it ends a
    search. `reset(seed=...)` seeds the sample of sequences if one is drawn.

    ## Rendering

    `ansi`: a bar of the share kept for every unit set.

    ## Version history

    - v0: first.

    Args:
        rules: the rules of an episode. `autoprune.make_env` makes an environment from a model, a text and budgets.
        render_mode: `ansi` or None.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's convention)

    def __init__(self, rules: EpisodeRules, render_mode: str | None = None) -> None:
        self.rules, self.render_mode = rules, render_mode
        self.episodes = Episodes(rules)
        self.action_space = rules.action_space()
        self.observation_space = rules.observation_space()
        self._begun = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode and draw its sample."""
        super().reset(seed=seed)
        self.episodes.begin(self.np_random)
        self._begun = True
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Set the present unit.

        Raises:
            InvalidAction: the action is outside the space.
            UserError: the reward function raised an exception, or its value is not a finite number.
            LimitReached: the objective's limits are spent.
            ResetNeeded: no episode has begun, or the last one has ended.
        """
        if not self._begun or self.episodes.walk.done:
            raise ResetNeeded("there is no episode to step in: call reset() before the first step and after the last.")
        reward = float(self.episodes.step(np.asarray(action).reshape(1))[0])
        outcome = self.episodes.outcome
        info = {"levels": outcome.policies[0], "loss": float(outcome.losses_N[0])} if outcome else {}
        return self._observation(), reward, outcome is not None, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Discrete actions allowed for the present unit, `[L]` (the name that sb3-contrib's MaskablePPO asks for)."""
        return np.asarray(self.episodes.masks()[0])

    def render(self) -> str | None:
        """A bar for every unit set so far."""
        return self.episodes.render() if self.render_mode == "ansi" else None

    @property
    def task(self) -> EpisodeRules:
        """The rules, by the name that scripts written for earlier versions read them by."""
        return self.rules

    @property
    def levels(self) -> Levels:
        """The levels set so far; at the end, the levels that were scored."""
        return self.episodes.policies()[0][: self.episodes.walk.step]

    def _observation(self) -> Any:
        observed_F = self.episodes.observe()[0]
        return split(observed_F) if self.rules.observation == "dict" else observed_F
