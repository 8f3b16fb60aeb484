"""The policy alone, as a file: the level of every unit, its costs, losses and provenance."""

from pathlib import Path

from autoprune.assembly import Assembly
from autoprune.errors import UserError
from autoprune.policy import Policy


def export(assembly: Assembly, policy: Policy, path: Path) -> None:
    """Write the policy file to `path`, or into it as `policy.json` where it is a directory.

    Raises:
        UserError: the disk is full or not writable.
    """
    target = path / "policy.json" if path.is_dir() else path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"'{target.parent}' cannot be made ({error.strerror}).") from error
    policy.save(target)
