"""The policy alone, as a file: the level of every unit, its costs, losses and provenance."""

from pathlib import Path

from autoprune.errors import UserError
from autoprune.exporters.source import Source
from autoprune.files.reading import DAMAGE, read_json
from autoprune.journal import FILE as JOURNAL
from autoprune.policy import EARLIER, SCHEMA
from autoprune.ports.exporter import Exporter


class PolicyFile(Exporter):
    """The policy file at the path, or in it as `policy.json` where it is a directory."""

    needs_network = False

    def check(self, path: Path) -> None:
        """Nothing but an earlier policy file is replaced, and no run's own.

        Raises:
            UserError: something else is there.
        """
        target = _target(path)
        if not target.exists():
            return
        if not target.is_file():
            raise UserError(f"'{target}' is no regular file: choose another name.")
        if target.name == "policy.json" and (target.parent / JOURNAL).exists():
            raise UserError(f"'{target}' is a run's own policy: choose another name.")
        try:
            schema = read_json(target)["schema"]
        except (OSError, *DAMAGE):
            schema = None
        if schema not in (SCHEMA, EARLIER):
            raise UserError(f"'{target}' is no policy file, and is not replaced by one: choose another name.")

    def write(self, source: Source, path: Path) -> None:
        """Write the file.

        Raises:
            UserError: the disk is full or not writable.
        """
        target = _target(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"'{target.parent}' cannot be made ({error.strerror}).") from error
        source.policy.save(target)


def _target(path: Path) -> Path:
    return path / "policy.json" if path.is_dir() else path
