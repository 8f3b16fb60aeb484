"""What is watched: a run, a comparison, or a folder of them. A name that a browser sends is looked up, not joined."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoprune import rundir
from autoprune.comparing.results import PLAN, is_finished, run_name
from autoprune.errors import UserError
from autoprune.files.reading import DAMAGE, read_yaml
from autoprune.watching.run_reader import RunReader, Seen, State

Kind = Literal["run", "comparison", "folder"]
MOST = 300  # entries of a folder that are listed, the newest first


@dataclass(frozen=True)
class Place:
    """A directory that is watched.

    Args:
        name: its path within the folder, with `/`; empty for the folder itself.
        path: the directory.
        kind: what it holds.
    """

    name: str
    path: Path
    kind: Kind


class Folder:
    """The directory that the user named, and what is in it.

    Args:
        path: a run, a comparison, or a folder of them.

    Raises:
        UserError: there is no such directory.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UserError(f"'{path}' is no directory of a run, of a comparison, or of several of them.")
        self.path, self._readers = path, dict[Path, RunReader]()

    def place(self, name: str) -> Place:
        """What has this name.

        Raises:
            LookupError: nothing has.
        """
        root = Place("", self.path, kind_of(self.path))
        if not name:
            return root
        for child in self.children(root):
            if child.name == name:
                return child
            if child.kind == "comparison" and name.startswith(f"{child.name}/"):
                for run in self.children(child):
                    if run.name == name:
                        return run
        raise LookupError(name)

    def children(self, place: Place) -> list[Place]:
        """Runs and comparisons in a place, the newest first; the runs of a comparison in its own order."""
        if place.kind == "run":
            return []
        prefix = f"{place.name}/" if place.name else ""
        there = [path for path in place.path.iterdir() if not path.is_symlink() and (path / "config.yaml").is_file()]
        found = [Place(f"{prefix}{path.name}", path, kind_of(path)) for path in there]
        if place.kind == "comparison":
            order = planned(place.path)
            runs = [one for one in found if one.kind == "run"]
            return sorted(runs, key=lambda one: (order.get(one.path.name, len(order)), one.name))
        return sorted(found, key=lambda one: (one.path / "config.yaml").stat().st_mtime_ns, reverse=True)[:MOST]

    def read(self, place: Place, brief: bool = False) -> Seen:
        """What is known of a run now; `brief` is as in `RunReader.read`."""
        reader = self._readers.get(place.path) or self._readers.setdefault(place.path, RunReader(place.path))
        return reader.read(brief)


def kind_of(path: Path) -> Kind:
    """What a directory holds."""
    if not (path / "config.yaml").is_file():
        return "folder"
    return "comparison" if (path / PLAN).is_file() else "run"


def progress_of(path: Path) -> tuple[State, int, int]:
    """The state of a comparison, and how many of its searches have ended."""
    names = planned(path)
    ended = sum(_is_finished(path / name) for name in names)
    if rundir.is_in_use(path):
        return "searching", ended, len(names)
    return "finished" if ended == len(names) > 0 else "ended", ended, len(names)


def _is_finished(run: Path) -> bool:
    try:
        return is_finished(run)
    except UserError:
        return False


def planned(path: Path) -> dict[str, int]:
    """The runs of a comparison by name, with their number in its order; empty where the plan is damaged."""
    try:
        plan = read_yaml(path / PLAN)
        pairs = [(agent, seed) for seed in plan["seeds"] for agent in plan["agents"]]
        return {run_name(str(agent), int(seed)): number for number, (agent, seed) in enumerate(pairs)}
    except (OSError, *DAMAGE):
        return {}
