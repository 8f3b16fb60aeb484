"""Reads the setting `forms`: which forms the levels of a search may have, each with its argument.

    groups,sparse,2:4          groups, shares of single weights, and two of four neighbouring weights
    sparse:0.5/0.3,bits:4      a form's own argument follows its name and a colon; slashes stand within an argument

An entry is the name of a form in the registry, or `package.module:Object` or `file.py:Object`. `N:M` alone is the form
`n:m` with this argument.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoprune import registry
from autoprune.errors import UserError
from autoprune.level import GROUPS, Form, Level, form_called

if TYPE_CHECKING:
    from autoprune.config import SearchConfig

PATTERN = re.compile(r"\d+:\d+")
"""How people write a pattern of N weights of M."""


@dataclass(frozen=True)
class ChosenForm:
    """A form that a search may use.

    Args:
        name: of the form.
        argument: what stands behind the name; empty where nothing does.
    """

    name: str
    argument: str = ""

    @property
    def form(self) -> Form:
        """The form.

        Raises:
            UserError: as `form_called`.
        """
        return form_called(self.name)


def listed(forms: object) -> str:
    """The setting as one text, from a text with commas or from a list.

    Raises:
        ValueError: it is neither, it is empty, or it names a form twice with the same argument.
    """
    parts = forms.split(",") if isinstance(forms, str) else forms
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"forms are names with commas, as groups,sparse, and not {forms!r}")
    named = [part.strip() for part in parts if part.strip()]
    if not named:
        raise ValueError("no form is named: the default is groups")
    twice = sorted({part for part in named if named.count(part) > 1})
    if twice:
        raise ValueError(f"the form '{twice[0]}' is named twice")
    return ",".join(named)


def chosen_forms(forms: str) -> list[ChosenForm]:
    """The forms of a setting, in its order."""
    return [_chosen(part) for part in forms.split(",")]


def only_groups(forms: str) -> bool:
    """Whether levels are of the form `groups` alone."""
    return all(one.name == GROUPS for one in chosen_forms(forms))


def check_forms(forms: str) -> None:
    """Raise a UserError where there is no such form, or a form does not take its argument."""
    for one in chosen_forms(forms):
        one.form.check_argument(one.argument)


def check_together(config: "SearchConfig", masks: bool) -> None:
    """Raise a UserError where settings leave no room for other forms than `groups`.

    Args:
        config: the settings.
        masks: whether the agent keeps or removes single groups.
    """
    if only_groups(config.forms):
        return
    if masks:
        raise UserError(
            f"the agent {config.agent} keeps or removes single groups, and cannot choose among forms={config.forms}: "
            "leave forms out, or take another agent."
        )
    if config.device_memory is not None:
        raise UserError(
            f"with device_memory, blocks are streamed with levels of groups alone, and not with forms={config.forms}: "
            "leave one of the two out."
        )


def ordered(levels: Iterable[Level], groups: int) -> tuple[Level, ...]:
    """The levels of one unit in their order: the dense one, then by density, then by the groups that they keep.

    A level that is there twice is there once.

    Args:
        levels: of all forms, without order.
        groups: of the unit.

    Raises:
        UserError: two forms give a level of the same name and of different densities.
    """
    found: dict[int | str, Level] = {groups: Level.of_groups(groups, groups)}
    for level in levels:
        other = found.setdefault(level.key, level)
        if other != level:
            raise UserError(f"two forms give the level {level.name} with the densities {other.density, level.density}.")
    dense, *others = found.values()
    return (dense, *sorted(others, key=lambda level: (-level.density, -level.kept)))


def _chosen(part: str) -> ChosenForm:
    if part in registry.names("forms"):
        return ChosenForm(part)
    if PATTERN.fullmatch(part):
        return ChosenForm("n:m", part)
    name, _, argument = part.partition(":")
    if "." in name or "/" in name:  # of the user's own module or file: its object is behind the first colon
        own, _, argument = argument.partition(":")
        return ChosenForm(f"{name}:{own}", argument)
    return ChosenForm(name, argument)
