"""The policy alone, as a file: the level of every unit, its costs, losses and provenance, and a card in a directory."""

from pathlib import Path

from autoprune.cards import loading
from autoprune.cards.card import write_card
from autoprune.cards.metadata import CARD, CARD_BYTES, dense_name
from autoprune.errors import UserError
from autoprune.exporters.source import Source
from autoprune.files.reading import DAMAGE, read_bytes, read_json
from autoprune.journal import FILE as JOURNAL
from autoprune.policy import EARLIER, SCHEMA
from autoprune.ports.exporter import Exporter


class PolicyFile(Exporter):
    """The policy file at the path, or in it as `policy.json` where it is a directory, with a card beside it.

    A README.md that is somebody's own is left as it is.
    """

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
        if path.is_dir() and _may_have_a_card(path):
            config, words = source.config, source.config.chosen_task().words
            write_card(path, loading.POLICY, config, source.policy, words, base=dense_name(config))


def _may_have_a_card(directory: Path) -> bool:
    """Whether the directory has no README.md, or one of an earlier export of a policy."""
    card = directory / CARD
    try:
        return not card.is_symlink() and b"library_name: autoprune\n" in read_bytes(card, CARD_BYTES)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def _target(path: Path) -> Path:
    return path / "policy.json" if path.is_dir() else path
