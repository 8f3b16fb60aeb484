"""The policy alone, as a file: the level of every unit, its costs, losses and provenance."""

from pathlib import Path

from autoprune.errors import UserError
from autoprune.exporters.source import Source
from autoprune.ports.exporter import Exporter


class PolicyFile(Exporter):
    """The policy file at the path, or in it as `policy.json` where it is a directory."""

    needs_network = False

    def write(self, source: Source, path: Path) -> None:
        """Write the file.

        Raises:
            UserError: the disk is full or not writable.
        """
        target = path / "policy.json" if path.is_dir() else path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"'{target.parent}' cannot be made ({error.strerror}).") from error
        source.policy.save(target)
