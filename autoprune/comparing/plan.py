"""The plan of a comparison: agents, seeds, the common settings, and the settings of each agent.

An agent's own settings are `agent_options.AGENT.KEY=VALUE`; in YAML or Python, a mapping for each agent.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field

from autoprune.comparing.results import PLAN, run_name
from autoprune.config import PLACES, SearchConfig, load_config
from autoprune.errors import UserError
from autoprune.files.reading import explained, read_yaml
from autoprune.files.writing import write_atomically
from autoprune.ports.agent import load_agent
from autoprune.records.storage import check_storage
from autoprune.study import limited, make_agent
from autoprune.written import without_password


class _PlanFile(BaseModel):
    """`compare.yaml`."""

    agents: list[str]
    seeds: list[Annotated[int, Field(ge=0)]]


@dataclass(frozen=True)
class ComparisonPlan:
    """Agents, seeds, and a configuration. Each search changes its agent and its seed only."""

    config: SearchConfig
    agents: tuple[str, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, config: SearchConfig, agents: list[str], seeds: list[int]) -> "ComparisonPlan":
        """Checked as far as it can be without a model; without a limit, that of a single search.

        Raises:
            UserError: there is no agent or no seed, an agent does not exist, or it has no such setting.
        """
        if not agents or not seeds:
            raise UserError("a comparison needs at least one agent and one seed.")
        config = limited(config).model_copy(update={"agent": agents[0], "seed": seeds[0]})
        plan = cls(config, tuple(dict.fromkeys(agents)), tuple(dict.fromkeys(seeds)))
        plan._check()
        return plan

    @classmethod
    def load(cls, out: Path, places: Mapping[str, Any] | None = None) -> "ComparisonPlan":
        """Those of a comparison that was begun, scored elsewhere if `places` say so (`config.PLACES`).

        Raises:
            UserError: its files are damaged.
        """
        config = load_config(out / "config.yaml", dict(places or {}))
        with explained("the plan", out / PLAN, "it names agents and seeds"):
            plan = _PlanFile.model_validate(read_yaml(out / PLAN))
        return cls.of(config, plan.agents, plan.seeds)

    def save(self, out: Path) -> None:
        """Write `compare.yaml`, by which a comparison is known, then `config.yaml`."""
        plan = {"agents": list(self.agents), "seeds": list(self.seeds)}
        write_atomically(out / PLAN, yaml.safe_dump(plan, sort_keys=False))
        self.config.save(out / "config.yaml")

    def searches(self) -> dict[str, SearchConfig]:
        """Name of the run -> its configuration, in the order in which they are run: seed by seed."""
        configs = [self._config_of(agent, seed) for seed in self.seeds for agent in self.agents]
        return {run_name(config.agent, config.seed): config for config in configs}

    def check_added_to(self, before: "ComparisonPlan", out: Path) -> None:
        """Raise a UserError that names what differs, unless agents and seeds were only added."""
        for what in ("agents", "seeds"):
            missing = [str(one) for one in getattr(before, what) if one not in getattr(self, what)]
            if missing:
                raise UserError(
                    f"the comparison '{out}' has the {what} {', '.join(missing)}, which are not asked for now: name "
                    "them too, or choose another --out."
                )
        there, asked = (
            one.config.model_dump(exclude={"agent", "seed", "agent_options", *PLACES}) for one in (before, self)
        )
        pairs = {key: (there[key], asked[key]) for key in there}
        pairs |= {f"agent_options.{a}": (before._options(a), self._options(a)) for a in before.agents}
        different = [f"{key} is {_shown(a)} there and {_shown(b)} now" for key, (a, b) in pairs.items() if a != b]
        if different:
            raise UserError(f"the comparison '{out}' has other settings: {'; '.join(different)}. Choose another --out.")

    def _config_of(self, agent: str, seed: int) -> SearchConfig:
        changes: dict[str, Any] = {"agent": agent, "seed": seed, "agent_options": self._options(agent)}
        takes = inspect.signature(load_agent(agent)).parameters
        changes |= {key: None for key in ("reward", "pretrained") if key not in takes}
        changes |= {} if "reward_options" in takes else {"reward_options": {}}
        if self.config.study_name:
            changes["study_name"] = f"{self.config.study_name}-{run_name(agent, seed)}"
        return self.config.model_copy(update=changes)

    def _options(self, agent: str) -> dict[str, Any]:
        """An agent's own settings, as `{agent: {key: value}}` or as `{agent.key: value}`."""
        options, prefix = self.config.agent_options, f"{agent}."
        flat = {key.removeprefix(prefix): value for key, value in options.items() if key.startswith(prefix)}
        return {**(options.get(agent) or {}), **flat}

    def _check(self) -> None:
        for key, value in self.config.agent_options.items():
            if not (key in self.agents and isinstance(value, dict)) and not key.startswith(
                tuple(f"{agent}." for agent in self.agents)
            ):
                raise UserError(
                    f"agent_options.{key} is for none of {', '.join(self.agents)}: in a comparison, an agent's own "
                    "settings are agent_options.AGENT.KEY=VALUE."
                )
        for config in self.searches().values():
            make_agent(config.agent, config.agent_settings())
        check_storage(self.config.storage)


def _shown(value: Any) -> str:
    return without_password(str(value))
